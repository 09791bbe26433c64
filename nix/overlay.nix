# The packages as attributes of nixpkgs.
#
# rust-overlay is applied to a copy of nixpkgs and its toolchain taken out, so that nothing else of it shows.
{ rust-overlay }:

final: _: {
  darling-builder-darwin-agent = final.callPackage ./darwin-agent.nix {
    inherit (final.extend (import rust-overlay)) rust-bin;
  };
  darling-builder = final.callPackage ./host-agent.nix {
    darwin-agent = final.darling-builder-darwin-agent;
  };
  darling-builder-xtask = final.callPackage ./xtask.nix { };
}
