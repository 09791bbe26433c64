# The Linux side, with the agents where it looks for them.
{
  lib,
  rustPlatform,
  installShellFiles,
  darwin-agent,
}:

let
  source = import ./source.nix { inherit lib; };
in
rustPlatform.buildRustPackage {
  pname = "darling-builder";
  inherit (source) version src;

  cargoLock.lockFile = ../Cargo.lock;
  # darwin-agent for Linux is the stand-in's, which tests and demonstrations use.
  cargoBuildFlags = [
    "--package=host-agent"
    "--package=darwin-agent"
  ];
  # They are checks of the flake.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles ];

  postInstall = ''
    mkdir -p $out/libexec/darling-builder
    mv $out/bin/darwin-agent $out/libexec/darling-builder/darwin-agent
    ln -s ${darwin-agent}/libexec/darling-builder/darwin-agent-macho $out/libexec/darling-builder/darwin-agent-macho
    ln -s host-agent $out/bin/darling-builder-hook

    $out/bin/host-agent man --directory man
    installManPage man/*
    for shell in bash zsh fish; do
      $out/bin/host-agent completions $shell > completion.$shell
      installShellCompletion --cmd host-agent --$shell completion.$shell
    done
  '';

  meta = source.meta // {
    description = "Builds x86_64-darwin derivations for Nix on Linux, through Darling";
    mainProgram = "host-agent";
  };
}
