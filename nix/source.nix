# What the Rust programs are built from: what they contain at compile time is in docs/ and units/ as well.
{ lib }:

{
  version = (lib.importTOML ../Cargo.toml).workspace.package.version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../.cargo
      ../Cargo.lock
      ../Cargo.toml
      ../clippy.toml
      ../crates
      ../docs
      ../fixtures
      ../nixos
      ../rustfmt.toml
      ../templates
      ../units
    ];
  };

  meta = {
    license = [
      lib.licenses.asl20
      lib.licenses.mit
    ];
    platforms = [ "x86_64-linux" ];
  };
}
