# Strings and versions.
rec {
  concatStringsSep = builtins.concatStringsSep;

  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;

  # By splitting; the pattern is made of characters that stand for themselves.
  hasInfix = infix: text: builtins.length (splitString infix text) > 1;

  splitString =
    separator: text:
    let
      escaped = builtins.replaceStrings special (map (character: "\\${character}") special) separator;
    in
    builtins.filter builtins.isString (builtins.split escaped text);

  special = [
    "\\"
    "."
    "+"
    "*"
    "?"
    "("
    ")"
    "["
    "]"
    "{"
    "}"
    "^"
    "$"
    "|"
  ];

  versionAtLeast = version: least: builtins.compareVersions version least >= 0;

  versions.majorMinor =
    version:
    let
      part = builtins.elemAt (builtins.splitVersion version);
    in
    "${part 0}.${part 1}";
}
