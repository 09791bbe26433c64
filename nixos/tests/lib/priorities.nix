# Conditions and priorities of definitions. A lower number wins.
let
  typed = type: value: (value._type or null) == type;
in
rec {
  defaultPriority = 100;
  optionDefaultPriority = 1500;

  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;

  # The definitions that `definition` holds, each { priority, value }.
  discharge =
    definition:
    if !builtins.isAttrs definition then
      [
        {
          priority = defaultPriority;
          value = definition;
        }
      ]
    else if typed "merge" definition then
      builtins.concatLists (map discharge definition.contents)
    else if typed "if" definition then
      if definition.condition then discharge definition.content else [ ]
    else if typed "override" definition then
      map (found: found // { inherit (definition) priority; }) (discharge definition.content)
    else
      [
        {
          priority = defaultPriority;
          value = definition;
        }
      ];

  lowest =
    found:
    builtins.foldl' (least: one: if one.priority < least then one.priority else least) 9999 found;

  # The values that win.
  winners =
    definitions:
    let
      found = builtins.concatLists (map discharge definitions);
    in
    map (one: one.value) (builtins.filter (one: one.priority == lowest found) found);

  highestOf = definitions: lowest (builtins.concatLists (map discharge definitions));

  # A definition of several options as sets whose conditions and priorities stand at each option: which
  # options are defined must be known before any condition is, because conditions are made of options.
  pushDown =
    definition:
    if typed "merge" definition then
      builtins.concatLists (map pushDown definition.contents)
    else if typed "if" definition then
      map (builtins.mapAttrs (_: mkIf definition.condition)) (pushDown definition.content)
    else if typed "override" definition then
      map (builtins.mapAttrs (_: mkOverride definition.priority)) (pushDown definition.content)
    else
      [ definition ];
}
