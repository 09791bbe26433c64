# The systemd units from their one source, which `host-agent install` reads as well: tables as nested sets,
# `@NAME@` replaced.
values:

let
  names = builtins.attrNames values;
  fill =
    value:
    if builtins.isString value then
      builtins.replaceStrings (map (name: "@${name}@") names) (map (name: values.${name}) names) value
    else if builtins.isList value then
      map fill value
    else if builtins.isAttrs value then
      builtins.mapAttrs (_: fill) value
    else
      value;
in
fill (builtins.fromTOML (builtins.readFile ../units/darling-builder.toml))
