# Modules: paths, sets or functions, with imports, options and config.
{ priorities, types }:

let
  isOption = value: (value._type or null) == "option";

  load =
    arguments: module:
    let
      loaded = if builtins.isPath module then import module else module;
      value = if builtins.isFunction loaded then loaded arguments else loaded;
      long = value ? config || value ? options;
      imports = value.imports or [ ];
    in
    [
      {
        options = value.options or { };
        config = if long then value.config or { } else removeAttrs value [ "imports" ];
      }
    ]
    ++ builtins.concatLists (map (load arguments) imports);

  # Declarations of several modules in one tree.
  declare = builtins.zipAttrsWith (
    name: found:
    if builtins.any isOption found then
      if builtins.length found == 1 then
        builtins.head found
      else
        throw "The option `${name}' is declared twice"
    else
      declare found
  );
in
{
  # { config, options } of modules which are given `specialArgs` as well.
  evalModules =
    { modules, specialArgs }:
    let
      arguments = specialArgs // {
        inherit config options;
      };
      loaded = builtins.concatLists (map (load arguments) modules);
      declared = declare (map (module: module.options) loaded);
      defined = builtins.concatLists (map (module: priorities.pushDown module.config) loaded);

      evaluate =
        path: tree: definitions:
        let
          flat = builtins.concatLists (map priorities.pushDown definitions);
          unknown = builtins.filter (name: !(tree ? ${name})) (
            builtins.concatLists (map builtins.attrNames flat)
          );
          of = name: map (set: set.${name}) (builtins.filter (set: set ? ${name}) flat);
          node =
            name: value:
            let
              place = if path == "" then name else "${path}.${name}";
            in
            if isOption value then option place value (of name) else evaluate place value (of name);
        in
        if unknown != [ ] then
          throw "The option `${if path == "" then "" else "${path}."}${builtins.head unknown}' does not exist"
        else
          builtins.mapAttrs node tree;

      option =
        place: declaration: definitions:
        let
          all =
            definitions
            ++ (
              if declaration ? default then
                [ (priorities.mkOverride priorities.optionDefaultPriority declaration.default) ]
              else
                [ ]
            );
          winners = priorities.winners all;
        in
        declaration
        // {
          highestPrio = priorities.highestOf all;
          value =
            if winners == [ ] then
              throw "The option `${place}' is used but not defined"
            else
              types.checked declaration.type place winners;
        };

      options = evaluate "" declared defined;

      values = builtins.mapAttrs (_: node: if isOption node then node.value else values node);
      config = values options;
    in
    {
      inherit config options;
    };

  # Declarations by their full names, for documentation.
  optionTree =
    modules: specialArgs:
    let
      declared = declare (
        map (module: module.options) (builtins.concatLists (map (load specialArgs) modules))
      );
      walk =
        path: tree:
        builtins.concatLists (
          map (
            name:
            let
              node = tree.${name};
              place = if path == "" then name else "${path}.${name}";
            in
            if isOption node then [ (node // { name = place; }) ] else walk place node
          ) (builtins.attrNames tree)
        );
    in
    walk "" declared;
}
