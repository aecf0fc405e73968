"""What a machine can hold of the style: floors, bans, sizes, docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import asyncjobs
from asyncjobs.store.statements import Statements
from tests.sources import tree_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "asyncjobs"

# Longest prefix decides. A new module finds its place here before it is merged.
FLOORS = {
    "asyncjobs": 0,  # the lazy names: loads nothing by itself
    "asyncjobs.errors": 0,
    "asyncjobs.clock": 0,
    "asyncjobs.states": 0,
    "asyncjobs.records": 0,
    "asyncjobs.inventory": 0,
    "asyncjobs.locks": 0,
    "asyncjobs.rules": 1,
    "asyncjobs.store": 2,
    "asyncjobs.running": 3,
    "asyncjobs.services": 4,
    "asyncjobs.tasks": 5,
    "asyncjobs.registrars": 5,
    "asyncjobs.facts": 5,
    "asyncjobs.filters": 5,
    "asyncjobs.subscribing": 5,
    "asyncjobs.scheduling": 5,
    "asyncjobs.watching": 5,
    "asyncjobs.handle": 5,
    "asyncjobs.errands": 5,
    "asyncjobs.intake": 5,
    "asyncjobs.editing": 5,
    "asyncjobs.changes": 5,
    "asyncjobs.queue_control": 5,
    "asyncjobs.registry": 5,
    "asyncjobs.program": 5,
    "asyncjobs.runner": 5,
    "asyncjobs.testing": 6,
    "asyncjobs.fixtures": 6,
    "asyncjobs.demo": 6,
    "asyncjobs.cli": 6,
    "asyncjobs.web": 6,
    "asyncjobs.metrics": 6,
    "asyncjobs.__main__": 6,
}

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
# What is over the limit today, by its lines. These numbers may only fall, and the list only shrink.
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}

VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "base_utils"}

UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "imp", "runpy"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
# importlib only where no name comes from data: the table of public names.
IMPORTLIB_ALLOWED = {
    "asyncjobs": {"importlib"},
    # The application that is named on the command line.
    "asyncjobs.cli.application": {"importlib"},
    # The modules of registered tasks, in the fork server.
    "asyncjobs.running.executors.process.modules": {"importlib"},
}

SQL = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|REPLACE|VALUES|FROM|WHERE|ORDER BY"
    r"|RETURNING|PRAGMA|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|VACUUM|ATTACH)\b"
)
CONTROL = re.compile(r"^(PRAGMA [\w{} =()]+|PRAGMA |BEGIN( IMMEDIATE)?|COMMIT|ROLLBACK)$")
CONTROL_ALLOWED = {
    "asyncjobs.store.sqlite.connection",
    "asyncjobs.store.sqlite.store",
    "asyncjobs.store.sqlite.joining",
    "asyncjobs.store.sqlite.looking",
    "asyncjobs.store.sqlite.migrate",
    "asyncjobs.store.sqlite.check",
}
CLAUSES_ALLOWED = {"asyncjobs.store.filters"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, ast.Module]:
    return {module_name(path): tree_of(path) for path in sorted(PACKAGE.rglob("*.py"))}


def path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: bodies of ``if TYPE_CHECKING`` are left out."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for node in child.orelse:
                yield node
                yield from runtime_nodes(node)
            continue
        yield child
        yield from runtime_nodes(child)


def imported_modules(module: str, tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports at run time; of ``from a import b`` also ``a.b``."""
    package = module if path_of(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of this package that ``module`` imports, packages on the way left out."""
    known = sources()
    found = {name for name in imported_modules(module, known[module]) if name in known}
    return {name for name in found if not any(other.startswith(name + ".") for other in found)}


def floor_of(module: str) -> int | None:
    name = module
    while name:
        if name in FLOORS and (name != "asyncjobs" or module == "asyncjobs"):
            return FLOORS[name]
        name = name.rpartition(".")[0]
    return None


def strings_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """String constants and f-strings, ``{}`` for what is filled in; no docstrings, no messages."""
    if isinstance(tree, ast.JoinedStr):
        pieces = (p.value if isinstance(p, ast.Constant) else "{}" for p in tree.values)
        yield tree.lineno, "".join(str(piece) for piece in pieces)
        return
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree.lineno, tree.value
    for child in ast.iter_child_nodes(tree):
        # A string that stands for itself is a docstring, of a module, class, function or name.
        docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if not docstring and not isinstance(child, ast.Raise):  # messages may speak of SQL
            yield from strings_of(child)


def functions_of(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
            yield from functions_of(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from functions_of(child, f"{prefix}{child.name}.")
        else:
            yield from functions_of(child, prefix)


# Floors


def test_every_module_has_a_floor() -> None:
    homeless = [module for module in sources() if floor_of(module) is None]
    assert homeless == [], "give them a place in FLOORS"


def test_imports_run_downward_only() -> None:
    upward = [
        f"{module} (floor {floor_of(module)}) imports {imported} (floor {floor_of(imported)})"
        for module in sources()
        for imported in own_imports(module)
        if (floor_of(imported) or 0) > (floor_of(module) or 0)
    ]
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()
    circles: list[str] = []

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            circles.append(" -> ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for imported in sorted(own_imports(module)):
                visit(imported, (*way, module))
            done.add(module)

    for module in sources():
        visit(module, ())
    assert circles == []


def test_the_rules_neither_wait_nor_read_a_clock_nor_know_sql() -> None:
    for module, tree in sources().items():
        if not module.startswith("asyncjobs.rules"):
            continue
        waits = [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncWith)]
        imports = set(imported_modules(module, tree))
        assert waits == [], module
        assert not imports & {"asyncio", "anyio", "time", "sqlite3", "aiosqlite"}, module


# SQL


def test_sql_stands_in_sql_files() -> None:
    strays = []
    for module, tree in sources().items():
        for line, text in strings_of(tree):
            if not SQL.search(text) or module in CLAUSES_ALLOWED:
                continue
            if not (module in CONTROL_ALLOWED and CONTROL.match(text)):
                strays.append(f"{module}:{line}: {text[:60]!r}")
    assert strays == []


def test_a_sql_string_in_a_method_would_be_found() -> None:
    tree = ast.parse("def f(db, n):\n    'UPDATE is a word.'\n    db.execute(f'SELECT {n} FROM t')")
    assert [text for _, text in strings_of(tree) if SQL.search(text)] == ["SELECT {} FROM t"]


def test_every_statement_has_a_purpose_and_is_one_statement() -> None:
    files = [path for path in PACKAGE.rglob("*.sql") if path.parent.name != "migrations"]
    assert files
    for path in files:
        statements = Statements(path)
        assert statements.text, path.name
        for name, text in statements.text.items():
            assert len(statements.purpose[name]) > 10, name
            code = re.sub(r"--.*", "", text)
            assert ";" not in code, f"{name} in {path.name} holds more than one statement"
            assert sqlite3.complete_statement(text + ";"), name
        heads = re.findall(r"^-- (\w+): ", path.read_text("utf-8"), re.MULTILINE)
        assert len(heads) == len(set(heads)), f"{path.name} names a statement twice"


def test_every_statement_is_used() -> None:
    for path in PACKAGE.rglob("queries.sql"):
        package = module_name(path.parent)
        used = {
            text
            for module, tree in sources().items()
            if module.startswith(package)
            for _, text in strings_of(tree)
        }
        assert set(Statements(path).text) - used == set()


def test_every_migration_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("migrations/*.sql"):
        assert re.match(r"\d{4}_\w+$", path.stem), path.name
        assert path.read_text("utf-8").startswith("-- "), path.name


# Bans


def test_no_code_is_loaded_from_data() -> None:
    found = []
    for module, tree in sources().items():
        imported = set(imported_modules(module, tree))
        unsafe = {name for name in imported if name.split(".")[0] in UNSAFE_MODULES}
        names = {name for name in imported if name.split(".")[0] in ("importlib", "pkgutil")}
        allowed = IMPORTLIB_ALLOWED.get(module, set())
        unsafe |= {
            name for name in names if name not in allowed and name.rpartition(".")[0] not in allowed
        }
        found += [f"{module} imports {name}" for name in sorted(unsafe)]
        found += [
            f"{module}:{node.lineno} calls {node.func.id}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in UNSAFE_CALLS
        ]
    assert found == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = [module for module in sources() if set(module.split(".")) & VAGUE_NAMES]
    assert vague == []


def test_no_absolute_paths_of_a_machine_and_no_addresses_of_registries() -> None:
    # Put together here, so that this file does not hold what it looks for.
    folders = "|".join(("home", "root", "Users", "work", "tmp", "opt", "mnt"))
    hosts = "|".join((r"pypi\.org", r"pythonhosted\.org", r"npmjs\.(?:org|com)"))
    machine = re.compile(rf"""(?<![\w.:/~}}$-])/(?:{folders})/\w|\b[A-Z]:\\\w|{hosts}""")
    found = []
    for path in project_files():
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if machine.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_package_holds_nothing_but_sources() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file()]
    kinds = {".py", ".sql", ".pyc"}
    assert [p.name for p in files if p.suffix not in kinds and p.name != "py.typed"] == []


def project_files() -> Iterator[Path]:
    kinds = {".py", ".sql", ".toml", ".md", ".txt", ".html", ".css", ".js", ".sh", ".yml", ""}
    roots = ("asyncjobs", "benchmarks", "docs", "examples", "tests", ".ci")
    inside = (path for root in roots for path in (ROOT / root).rglob("*"))
    for path in (*inside, *ROOT.iterdir()):
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts:
            yield path


# Sizes


def test_files_stay_short() -> None:
    lines = {module: len(path_of(module).read_text("utf-8").splitlines()) for module in sources()}
    assert_only_shrinks({k: n for k, n in lines.items() if n > FILE_LINES_MAX}, LONG_FILES)


def test_functions_stay_short() -> None:
    lines = {
        f"{module}.{name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for module, tree in sources().items()
        for name, node in functions_of(tree)
    }
    assert_only_shrinks({k: n for k, n in lines.items() if n > FUNCTION_LINES_MAX}, LONG_FUNCTIONS)


def assert_only_shrinks(found: dict[str, int], known: dict[str, int]) -> None:
    grown = {name: lines for name, lines in found.items() if lines > known.get(name, 0)}
    assert grown == {}, "too long: cut it in pieces with names"
    assert known == found, "it has become shorter: say so in the list"


# Docstrings


def public_functions() -> Iterator[tuple[str, str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Name, docstring that speaks for it, and code of every public function and method."""
    homes = {name: f"asyncjobs.{home}" for name, home in asyncjobs._HOME_OF.items()}
    for name, home in sorted(homes.items()):
        for node in sources()[home].body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
                yield name, ast.get_docstring(node) or "", node
            elif isinstance(node, ast.ClassDef) and node.name == name:
                for method in node.body:
                    if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                        continue
                    if method.name in ("__init__", "__post_init__", "__new__"):
                        yield f"{name}.{method.name}", ast.get_docstring(node) or "", method
                    elif not method.name.startswith("_"):
                        yield f"{name}.{method.name}", ast.get_docstring(method) or "", method


def raised_by(node: ast.AST) -> set[str]:
    """Exceptions that the code itself raises by name; not those of functions inside it."""
    raised = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            name = ast.unparse(child.exc.func)
            if name.isidentifier() and name[0].isupper():
                raised.add(name)
        raised |= raised_by(child)
    return raised


def test_every_public_name_has_a_docstring_of_its_own() -> None:
    for name in asyncjobs.__all__:
        value = getattr(asyncjobs, name)
        own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        assert (own or "").strip(), name
    silent = [
        name
        for name, docstring, node in public_functions()
        # A setter and an overload are spoken for by what they belong to.
        if not docstring and not any("overload" in ast.unparse(d) for d in node.decorator_list)
    ]
    assert silent == []


def test_public_functions_list_what_they_raise() -> None:
    missing = []
    for name, docstring, node in public_functions():
        listed = docstring.partition("Raises:")[2]
        missing += [f"{name}: {error}" for error in raised_by(node) if error not in listed]
    assert missing == []


def test_the_tree_of_errors_is_drawn_whole() -> None:
    from asyncjobs import errors

    drawn = errors.__doc__ or ""
    for name in errors.__all__:
        kind = getattr(errors, name)
        if issubclass(kind, errors.AsyncJobsError):
            assert re.search(rf"\b{name}\b", drawn), name
    assert set(errors.__all__) == {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }


# The public names


def test_the_names_for_type_checkers_are_the_names_at_run_time() -> None:
    declared = {
        alias.asname
        for node in ast.walk(sources()["asyncjobs"])
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert declared == set(asyncjobs.__all__)
    names = dir(asyncjobs)
    assert [name for name in names if not name.startswith("__")] == sorted(asyncjobs.__all__)
    assert len(names) == len(set(names))
    for name in asyncjobs.__all__:
        assert getattr(asyncjobs, name).__name__ == name


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = asyncjobs.no_such_name


def test_importing_the_package_loads_neither_sqlite_nor_an_event_loop() -> None:
    heavy = ("sqlite3", "aiosqlite", "anyio", "asyncio", "msgspec")
    program = f"import asyncjobs, sys; print([m for m in {heavy!r} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.strip() == "[]"


def test_importing_the_errors_loads_neither_sqlite_nor_an_event_loop() -> None:
    program = (
        "import sys; from asyncjobs import JobFailed, Retry; "
        "print([m for m in ('sqlite3', 'aiosqlite', 'anyio') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert loaded.stdout.strip() == "[]"
