# Everything `cargo xtask` asks for, so that it installs nothing.
{
  mkShell,
  cargo,
  cargo-insta,
  clippy,
  nixfmt,
  python3,
  rustc,
  rustfmt,
  zig,
}:

mkShell {
  packages = [
    cargo
    cargo-insta
    clippy
    nixfmt
    python3
    rustc
    rustfmt
    zig
  ];
}
