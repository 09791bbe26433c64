# Types: what a value must be, and what several definitions make together.
#
# `merge` gets the option's name and the values of equal priority; a value may itself hold conditions and
# priorities further down.
{ strings, priorities }:

let
  same =
    name: values:
    let
      first = builtins.head values;
    in
    if builtins.all (value: value == first) values then
      first
    else
      throw "The option `${name}' has conflicting definition values: ${builtins.toJSON values}";

  basic = description: check: {
    inherit description check;
    merge = same;
  };

  # A type inside another one.
  inner =
    type: name: definitions:
    checked type name (priorities.winners definitions);

  # All values of the type, merged.
  checked =
    type: name: values:
    let
      wrong = builtins.filter (value: !(type.check value)) values;
      shown =
        value:
        if builtins.isFunction value then
          "a function"
        else if builtins.isPath value then
          toString value
        else
          builtins.toJSON value;
    in
    if wrong != [ ] then
      throw "A definition for option `${name}' is not of type `${type.description}': ${shown (builtins.head wrong)}"
    else
      type.merge name values;

  parenthesised = text: if strings.hasInfix " " text then "(${text})" else text;
in
rec {
  inherit checked;

  bool = basic "boolean" builtins.isBool;
  int = basic "signed integer" builtins.isInt;
  float = basic "floating point number" builtins.isFloat;
  str = basic "string" builtins.isString;
  anything = basic "anything" (_: true);
  path = basic "absolute path" (
    value: builtins.isPath value || (builtins.isString value && strings.hasPrefix "/" value)
  );
  package = basic "package" (value: builtins.isAttrs value && value ? outPath);
  lines = basic "strings concatenated with \"\\n\"" builtins.isString // {
    merge = _: builtins.concatStringsSep "\n";
  };
  strMatching =
    pattern:
    basic "string matching the pattern ${pattern}" (
      value: builtins.isString value && builtins.match pattern value != null
    );
  enum =
    choices:
    basic "one of ${builtins.concatStringsSep ", " (map builtins.toJSON choices)}" (
      value: builtins.elem value choices
    );

  ints = {
    unsigned = basic "unsigned integer, meaning >=0" (value: builtins.isInt value && value >= 0);
    positive = basic "positive integer, meaning >0" (value: builtins.isInt value && value > 0);
    between =
      least: most:
      basic "integer between ${toString least} and ${toString most} (both inclusive)" (
        value: builtins.isInt value && value >= least && value <= most
      );
  };
  nullOr = type: {
    description = "null or ${parenthesised type.description}";
    check = value: value == null || type.check value;
    merge =
      name: values: if builtins.all (value: value == null) values then null else checked type name values;
  };

  listOf = type: {
    description = "list of ${parenthesised type.description}";
    check = builtins.isList;
    merge = name: values: map (value: inner type name [ value ]) (builtins.concatLists values);
  };

  attrsOf = type: {
    description = "attribute set of ${parenthesised type.description}";
    check = value: builtins.isAttrs value && !(value ? outPath);
    merge =
      name: values:
      let
        each = builtins.zipAttrsWith (_: definitions: definitions) values;
        defined = builtins.filter (key: priorities.winners each.${key} != [ ]) (builtins.attrNames each);
      in
      builtins.listToAttrs (
        map (key: {
          name = key;
          value = inner type "${name}.${key}" each.${key};
        }) defined
      );
  };

  # Options inside a value: what the real library has submodules for.
  record = fields: {
    description = "record";
    check = builtins.isAttrs;
    merge =
      name: values:
      let
        each = builtins.zipAttrsWith (_: definitions: definitions) (
          builtins.concatLists (map priorities.pushDown values)
        );
        unknown = builtins.filter (key: !(fields ? ${key})) (builtins.attrNames each);
        field =
          key: option:
          inner option.type "${name}.${key}" (
            (each.${key} or [ ]) ++ [ (priorities.mkOverride priorities.optionDefaultPriority option.default) ]
          );
      in
      if unknown != [ ] then
        throw "The option `${name}.${builtins.head unknown}' does not exist"
      else
        builtins.mapAttrs field fields;
  };

  oneOf = choices: {
    description = builtins.concatStringsSep " or " (map (type: type.description) choices);
    check = value: builtins.any (type: type.check value) choices;
    merge =
      name: values:
      checked (builtins.head (
        builtins.filter (type: builtins.all type.check values) choices
        ++ [ (throw "The option `${name}' has definitions of different types") ]
      )) name values;
  };
}
