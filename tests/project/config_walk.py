"""Where a whole config goes by hand: the rooms that it enters from a command's function, and who takes one.

    python -m tests.project.config_walk [--root=DIR]

A room is a file, and a config is whole as a `ConfigDict` or as the settings of a run. It enters a room where a function
there is called with it, or reads it from what it was put down in (`run.settings`). Sections of a config, and single
values, are counted apart: they are typed, and small.
"""

import argparse
import ast
import dataclasses
import functools
from pathlib import Path

#: Types that are a whole config.
WHOLE = ("ConfigDict", "RunSettings", "PretrainingSettings")
#: What gives one, and attributes that hold one.
MAKERS = ("settings_of", "settings_of_run", "load_resolved", "load_config", "get_config", "load_recipe", "replace",
          "copy_and_resolve_references", "deepcopy", "with_data")  # fmt: skip
HOLDERS = ("settings", "config")
#: Command's function → most rooms that a config may enter from it.
ENTRIES = {("ecgjax.pretrain", "pretrain", "config"): 15, ("ecgjax.evaluate", "evaluate", "settings"): 20}


@dataclasses.dataclass(frozen=True)
class Tree:
    """The code below a folder.

    Attributes:
        root: The folder.
    """

    root: Path

    @functools.cached_property
    def modules(self):
        """Name of every module → its syntax tree."""
        paths = [path for package in ("ecgjax", "launch") for path in sorted((self.root / package).rglob("*.py"))]
        names = {".".join(path.relative_to(self.root).with_suffix("").parts): path for path in paths}
        return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()}

    def __hash__(self):
        return hash(self.root)


@functools.cache
def functions(tree):
    """`(module, function or Class.method)` → its definition; a class is called by its `__init__`."""
    found = {}
    for module, parsed in tree.modules.items():
        for node in parsed.body:
            if isinstance(node, ast.FunctionDef):
                found[module, node.name] = node
            elif isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        found[module, f"{node.name}.{method.name}"] = method
    return found


def takers(tree):
    """Returns `(module, function)` of every function with an argument that is annotated as a `ConfigDict`."""
    return sorted(
        name
        for name, node in functions(tree).items()
        if any("ConfigDict" in ast.unparse(each.annotation) for each in _arguments(node) if each.annotation)
    )


def _arguments(node):
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]


@functools.cache
def _names(tree, module):
    """Name in a module → what it is: a module, or `(module, function)`."""
    found = {}
    for node in ast.walk(tree.modules[module]):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found[alias.asname or alias.name] = whole if whole in tree.modules else (node.module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = alias.name
    return found


def _called(tree, module, call):
    """`(module, function)` that a call is of, where it is one of ours."""
    known = functions(tree)
    if isinstance(call.func, ast.Name):
        target = _names(tree, module).get(call.func.id, (module, call.func.id))
    elif isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        inner = _names(tree, module).get(call.func.value.id)
        target = (inner, call.func.attr) if isinstance(inner, str) else None
    else:
        target = None
    if not isinstance(target, tuple):
        return None
    return next((each for each in (target, (target[0], f"{target[1]}.__init__")) if each in known), None)


def _is_part(expression, names):
    """Whether an expression is a config, or a section or value of one as it stands there."""
    while isinstance(expression, ast.Attribute | ast.Subscript):
        if isinstance(expression, ast.Attribute) and expression.attr in HOLDERS:
            return True
        expression = expression.value
    return _is_whole(expression, names)


def _is_whole(expression, names):
    """Whether an expression is a whole config."""
    if isinstance(expression, ast.Name):
        return expression.id in names
    if isinstance(expression, ast.Attribute):
        return expression.attr in HOLDERS and isinstance(expression.value, ast.Name)
    if isinstance(expression, ast.Call):
        function = expression.func
        maker = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        inputs = [*expression.args, *(getattr(function, "value", None),)]
        return maker in MAKERS and (maker != "replace" or any(each and _is_whole(each, names) for each in inputs))
    return False


def _of_class(tree, module, function, known):
    """Methods of the class that keeps a whole config, all of which may read it."""
    name, dot, _ = function.partition(".")
    return [each for each in known if each[0] == module and dot and each[1].startswith(f"{name}.")]


def walk(tree, module, function, parameter, *, is_it=_is_whole):
    """Returns the modules that a config enters from an argument of a function, as `is_it` tells what is one."""
    known, entered, seen = functions(tree), set(), set()
    ways = [(module, function, frozenset({parameter}))]
    while ways:
        way = ways.pop()
        if way in seen:
            continue
        seen.add(way)
        module, function, names = way
        node, names = known[module, function], set(names)
        entered.add(module)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Assign) and is_it(inner.value, names):
                names |= {each.id for each in inner.targets if isinstance(each, ast.Name)}
                if any(isinstance(each, ast.Attribute) for each in inner.targets):
                    ways += [(*each, frozenset()) for each in _of_class(tree, module, function, known)]
        for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
            target = _called(tree, module, call)
            if target is None:
                continue
            arguments = [each.arg for each in _arguments(known[target])]
            arguments = arguments[arguments[:1] == ["self"] :]
            positional = {name for name, each in zip(arguments, call.args, strict=False) if is_it(each, names)}
            given = positional | {each.arg for each in call.keywords if each.arg and is_it(each.value, names)}
            if given or _passes_a_holder(call):
                ways.append((*target, frozenset(given)))
    return entered


def _passes_a_holder(call):
    """Whether a call is given a run, or a study, that keeps a whole config."""
    return any(isinstance(each, ast.Name) and each.id in ("run", "study") for each in call.args)


def main():
    """Prints who takes a whole config, and the rooms that it enters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2])
    tree = Tree(parser.parse_args().root)
    found = takers(tree)
    print(f"{len(found)} functions in {len({module for module, _ in found})} files take a ConfigDict:")
    for module, function in found:
        print(f"  {module}.{function}")
    for (module, function, parameter), most in ENTRIES.items():
        taken = [each.arg for each in _arguments(functions(tree)[module, function])]
        parameter = parameter if parameter in taken else taken[0]
        rooms, parts = (walk(tree, module, function, parameter, is_it=each) for each in (_is_whole, _is_part))
        print(f"from {module}.{function} a whole config enters {len(rooms)} rooms (at most {most}):")
        print("  " + ", ".join(sorted(rooms)))
        print(f"  and sections and values of it {len(parts)}: " + ", ".join(sorted(parts - rooms)))


if __name__ == "__main__":
    main()
