# Which way in a Nix has, and where it reads the setting from. The same rules as `host-agent nix-conf`; a test
# compares.
{ lib }:

{
  # "auto", "external-builder" or "build-hook"
  wanted,
  # nix.package
  nix,
  # services.darling-builder.package
  builder,
}:

let
  version = lib.versions.majorMinor (lib.getVersion nix);
  lix = lib.getName nix == "lix";
  atLeast = lib.versionAtLeast version;

  externalBuilderPlace = if !lix && atLeast "2.32" then "nix.conf" else null;
  hookPlace =
    if !atLeast "2.3" || (lix && atLeast "2.94") then
      null
    # These put the default of `build-hook` back after they have read nix.conf.
    else if !lix && atLeast "2.25" && !atLeast "2.34" then
      "environment"
    else
      "nix.conf";
in
rec {
  name =
    if wanted != "auto" then
      wanted
    else if externalBuilderPlace != null then
      "external-builder"
    else
      "build-hook";

  # "nix.conf", "environment" (of nix-daemon), or null: this Nix has no such way in.
  place = if name == "external-builder" then externalBuilderPlace else hookPlace;

  isExternalBuilder = name == "external-builder" && place != null;
  isHook = name == "build-hook" && place != null;

  hook = lib.getExe' builder "darling-builder-hook";
  hookLine = "build-hook = ${hook}";

  # 2.33 alone builds locally for --rebuild and --check, or fails.
  rebuilds = name == "external-builder" && version != "2.33";

  # As messages say it.
  nixName = "${if lix then "Lix" else "Nix"} ${version}";
}
