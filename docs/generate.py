"""What the site shows and nobody writes by hand: API reference, command line, lessons in two languages, MathJax.

python docs/generate.py        # writes docs/_generated and, once, docs/_mathjax; `make docs` calls it
"""
import ast
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tokenize
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

HERE = Path(__file__).parent
ROOT = HERE.parent
NO_PAGE = re.compile(r"__main__|all|lesson\d")  # starts cli; repeats the others; hold the solutions


# The API: read, not imported, so that it needs no torch and shows the source's own words -----------------------------

class Module:
    "A module of the package as its page needs it."
    def __init__(self, file: Path):
        text = file.read_text("utf-8")
        self.name, self.text, self.tree = file.stem, text, ast.parse(text)
        self.doc = ast.get_docstring(self.tree) or ""
        self.comments = {t.start[0]: t.string.lstrip("# ").strip()
                         for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT}
        self.notebook = (re.search(r"File to edit: \.\./(nbs/\S+)\.$", text, re.M) or ["", ""])[1]
        self.public, self.objects, self.methods, self.imports = [], {}, {}, {}
        for o in self.tree.body: self._add(o)

    def _add(self, o):
        if isinstance(o, ast.FunctionDef) and any(ast.unparse(d) == "patch" for d in o.decorator_list):  # fastcore's
            self.methods.setdefault(ast.unparse(o.args.args[0].annotation), []).append(o)
        elif isinstance(o, (ast.FunctionDef, ast.ClassDef)): self.objects[o.name] = o
        elif isinstance(o, ast.ImportFrom) and o.level: self.imports |= {a.asname or a.name: o.module for a in o.names}
        elif isinstance(o, (ast.Assign, ast.AnnAssign)):
            targets = o.targets if isinstance(o, ast.Assign) else [o.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            if names == ["__all__"]:
                if isinstance(o.value, ast.List): self.public = ast.literal_eval(o.value)
            else: self.objects |= dict.fromkeys(names, o)


def modules() -> list[Module]:
    "The modules that have public names, in the order of their notebooks: imports go down only."
    found = [Module(f) for f in (ROOT/"fastcourse").glob("*.py") if not NO_PAGE.fullmatch(f.stem)]
    return sorted((m for m in found if m.public), key=lambda m: m.notebook)


def prose(text: str) -> str:
    "A docstring as Markdown: outside of code, signs that mean something to Markdown stand for themselves."
    def plain(line):
        if line.startswith("    "): return line
        parts = re.split(r"(`+[^`]*`+)", line)
        parts[::2] = (re.sub(r"(?<=\S)([*_])|([<$\\])", lambda m: f"\\{m[0]}", o) for o in parts[::2])
        return "".join(parts)
    return "\n".join(map(plain, inspect.cleandoc(text).split("\n")))


def code(text: str) -> str:
    "Code in a cell of a table."
    return f"`{text}`".replace("|", r"\|") if text else ""


def parameters(f: ast.FunctionDef) -> list[tuple]:
    "(name with its stars, annotation, default, line) of each parameter; a bare `/` or `*` has a name only."
    a, res = f.args, []
    listed = a.posonlyargs+a.args
    defaults = [None]*(len(listed)-len(a.defaults))+a.defaults
    def add(o, default=None, stars=""):
        last = default or o
        res.append((stars+o.arg, ast.unparse(o.annotation) if o.annotation else "",
                    "" if default is None else ast.unparse(default), last.end_lineno))
    for i, (o, d) in enumerate(zip(listed, defaults)):
        add(o, d)
        if i+1 == len(a.posonlyargs): res.append(("/", "", "", 0))
    if a.vararg: add(a.vararg, stars="*")
    elif a.kwonlyargs: res.append(("*", "", "", 0))
    for o, d in zip(a.kwonlyargs, a.kw_defaults): add(o, d)
    if a.kwarg: add(a.kwarg, stars="**")
    return [o for o in res if o[0] not in ("self", "cls")]


def signature(f: ast.FunctionDef, name: str) -> str:
    "The call as it is written, on one line where there is room."
    params = [f"{n}: {t}"*bool(t)+n*(not t)+(f" = {d}" if t else f"={d}")*bool(d) for n, t, d, _ in parameters(f)]
    end = f") -> {ast.unparse(f.returns)}" if f.returns else ")"
    line = f"{name}({', '.join(params)}{end}"
    return line if len(line) <= 90 else f"{name}(\n" + "".join(f"    {o},\n" for o in params) + end


def table(rows: list[tuple]) -> str:
    "Rows of (name, type, default, meaning), without the columns that are empty everywhere."
    head = ("name", "type", "default", "meaning")
    keep = [i for i in range(4) if any(r[i] for r in rows)]
    lines = [head, ["---"]*4, *((code(n), code(t), code(d), prose(c).replace("|", r"\|")) for n, t, d, c in rows)]
    return "\n".join("| "+" | ".join(line[i] for i in keep)+" |" for line in lines)


def parameter_table(m: Module, f: ast.FunctionDef) -> str:
    "The comments behind the parameters, and behind what is given back."
    params = [o for o in parameters(f) if o[3] > f.lineno]
    last = {line: name for name, *_, line in params}  # of several on one line, the comment is the last one's
    rows = [(n, t, d, m.comments.get(line, "") if last[line] == n else "") for n, t, d, line in params]
    if f.returns and f.returns.end_lineno > f.lineno and (c := m.comments.get(f.returns.end_lineno)):
        rows.append(("returns", ast.unparse(f.returns), "", c))
    return table(rows) if any(r[3] for r in rows) else ""


def function_parts(m: Module, f: ast.FunctionDef, name: str) -> list[str]:
    "Call, docstring and parameters."
    shown = prose(ast.get_docstring(f) or "")
    if any("property" in ast.unparse(d) for d in f.decorator_list): return [f"*Property.* {shown}"]
    return [f"```python\n{signature(f, name)}\n```", shown, parameter_table(m, f)]


def class_parts(m: Module, c: ast.ClassDef) -> list[str]:
    "Docstring, fields, how it is made, and the methods that have a docstring."
    bases = ", ".join(map(ast.unparse, c.bases))
    parts = [f"```python\nclass {c.name}{f'({bases})' if bases else ''}\n```", prose(ast.get_docstring(c) or "")]
    fields = [o for o in c.body if isinstance(o, ast.AnnAssign) and not o.target.id.startswith("_")]
    rows = [(o.target.id, ast.unparse(o.annotation), ast.unparse(o.value) if o.value else "",
             m.comments.get(o.end_lineno, "")) for o in fields]
    if rows: parts.append(table(rows))
    methods = [o for o in c.body if isinstance(o, ast.FunctionDef)]+m.methods.get(c.name, [])
    for f in methods:
        if f.name == "__init__" and parameters(f):
            parts += function_parts(m, f, c.name)
    for f in methods:
        if not f.name.startswith("_") and ast.get_docstring(f):
            parts += [f"### {c.name}.{f.name}", *function_parts(m, f, f.name)]
    return parts


def constant_parts(m: Module, o) -> list[str]:
    "The line as it is written, with its comment."
    text = ast.get_source_segment(m.text, o)
    lines = text.split("\n")
    if len(lines) > 12: text = "\n".join([*lines[:11], "..."])
    return [f"```python\n{text}\n```", prose(m.comments.get(o.end_lineno, m.comments.get(o.lineno, "")))]


def api_page(m: Module) -> str:
    "The page of a module."
    parts = [f"# {m.name}", prose(m.doc),
             f"`from fastcourse.{m.name} import *` · written and shown at work in `{m.notebook}`"]
    elsewhere = [n for n in m.public if n not in m.objects]
    for name in (n for n in m.public if n in m.objects):
        o = m.objects[name]
        parts.append(f"## {name.strip('_') if name.startswith('__') else name}")
        if isinstance(o, ast.FunctionDef): parts += function_parts(m, o, name)
        elif isinstance(o, ast.ClassDef): parts += class_parts(m, o)
        else: parts += constant_parts(m, o)
    for owner, methods in m.methods.items():
        if owner in m.objects: continue
        parts += [f"## Methods of {owner}"]
        for f in methods: parts += [f"### {owner}.{f.name}", *function_parts(m, f, f.name)]
    if elsewhere:
        parts += ["## Also here", "\n".join(f"- `{n}`, of [{m.imports[n]}]({m.imports[n]}.md)" for n in elsewhere)]
    return "\n\n".join(o for o in parts if o)+"\n"


def api_index(found: list[Module]) -> str:
    "The list of modules, each with its job."
    jobs = {m.name: prose(m.doc.partition("\n")[0]).replace("|", r"\|") for m in found}
    rows = "\n".join(f"| [{name}]({name}.md) | {job} |" for name, job in jobs.items())
    names = "\n".join(jobs)
    return ("# API\n\n`from fastcourse.all import *` gives everything that stands here, beside fastai's own names. "
            "A page is a module, in the order of the notebooks.\n\n"
            f"| module | job |\n|---|---|\n{rows}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n")


# The command line ----------------------------------------------------------------------------------------------------

def help_of(*command: str) -> str:
    "What the command prints with --help."
    env = os.environ | {"COLUMNS": "88", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    asked = [sys.executable, "-m", "fastcourse", *command, "--help"]
    r = subprocess.run(asked, capture_output=True, text=True, env=env)
    if r.returncode: raise SystemExit(f"fastcourse {' '.join(command)} --help fails: {r.stderr}")
    return r.stdout.strip()


def command_page() -> str:
    "The help of `fastcourse` and of each of its commands."
    whole = help_of()
    commands = re.findall(r"^  (\S+(?: \S+)?)  ", whole, re.M)
    with ThreadPoolExecutor(2) as pool: helps = list(pool.map(lambda c: help_of(*c.split()), commands))
    parts = ["# Command line", f"```text\n{whole}\n```"]
    for c, text in zip(commands, helps): parts += [f"## fastcourse {c}", f"```text\n{text}\n```"]
    return "\n\n".join(parts)+"\n"


# The lessons ---------------------------------------------------------------------------------------------------------

def plain_outputs(outputs: list[dict]) -> list[dict]:
    "Outputs without widgets: a page with one names a CDN, and nobody answers its sliders."
    res = []
    for o in outputs:
        data = {k: v for k, v in o.get("data", {}).items() if not k.startswith("application/vnd.jupyter.widget")}
        widget = len(data) < len(o.get("data", {}))
        if not widget: res.append(o)
        elif data.keys()-{"text/plain"}: res.append(o | {"data": data})
    return res


def site_notebook(nb: dict, stored: dict) -> dict:
    """A lesson as myst-nb shows it: nbdev's directives as tags (`hide`: remove-cell), no metadata of widgets.

    `stored` is the notebook that holds the outputs, found by the cells' ids, and tells which cells are hidden."""
    source = {c["id"]: c for c in stored["cells"]}
    cells = []
    for c in nb["cells"]:
        text, old = "".join(c["source"]), source.get(c["id"], c)
        new = dict(cell_type=c["cell_type"], id=c["id"], metadata={}, source=re.sub(r"^#\|.*\n?", "", text, flags=re.M))
        if c["cell_type"] == "markdown": new["source"] = text
        else:
            flags = re.findall(r"^#\| *(\w+)", "".join(old["source"]), re.M)
            new |= dict(execution_count=None, outputs=plain_outputs(old.get("outputs", [])))
            if "hide" in flags: new["metadata"]["tags"] = ["remove-cell"]
        cells.append(new)
    kernel = {k: v for k, v in nb["metadata"].items() if k in ("kernelspec", "language_info")}
    return dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)


KOREAN_NOTE = """```{admonition} 출력과 그림
여기 실린 출력과 그림은 영어판 노트북에 저장된 것입니다. `fastcourse lessons DEST --lang ko`로 노트북을 만들어 직접 실행하면
그림의 글자도 한국어로 나옵니다.
```"""


def lessons() -> dict[str, dict]:
    "Path below docs/_generated -> notebook, of each lesson in both languages."
    from fastcourse.editions import lesson_names, lesson_notebook
    res = {}
    for name in lesson_names():
        stored = json.loads((ROOT/f"nbs/lessons/{name}.ipynb").read_text("utf-8"))
        res[f"lessons/en/{name}.ipynb"] = site_notebook(stored, stored)
        korean = res[f"lessons/ko/{name}.ipynb"] = site_notebook(lesson_notebook(name, "ko"), stored)
        korean["cells"].insert(1, dict(cell_type="markdown", id="stored", metadata={}, source=KOREAN_NOTE))
    return res


PLACES = {"README.md": "../index.md", "CONTRIBUTING.md": "../contributing.md", "CHANGELOG.md": "../changes.md",
          "nbs/lessons/": "lessons/ko/", "docs/": "../", "images/": "../../images/"}


def korean_readme() -> str:
    "README.ko.md as a page: its links lead to pages of the site."
    found = "|".join(map(re.escape, PLACES))
    return re.sub(rf"\]\(({found})", lambda m: f"]({PLACES[m[1]]}", (ROOT/"README.ko.md").read_text("utf-8"))


# MathJax -------------------------------------------------------------------------------------------------------------

MATHJAX = "mathjax/-/mathjax-3.2.2.tgz"
SHA512 = ("06df9249553c7811b6ef30a155ec0e89c62ced7b1db78d2a9b8f94a47c97ee4d"
          "3f3bd36588f73ec7bee4d7f144b0fb2328f64626fb5164cd6f3be81e5b43a11b")


def mathjax(dest: Path) -> bool:
    "Fetch MathJax, one file, from the npm registry, once; says so where it cannot be had."
    if (dest/"tex-svg-full.js").exists(): return True
    registry = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")
    try: data = urlopen(f"{registry}/{MATHJAX}", timeout=60).read()
    except (OSError, ValueError) as e: why = e
    else: why = None if hashlib.sha512(data).hexdigest() == SHA512 else "not the file that was expected"
    if why:
        print(f"MathJax cannot be had from {registry} ({why}): the formulas are shown as TeX.", file=sys.stderr)
        return False
    dest.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for name in ("package/LICENSE", "package/es5/tex-svg-full.js"):
            (dest/Path(name).name).write_bytes(tar.extractfile(name).read())
    return True


def write(dest: Path) -> None:
    "Write all pages; what was there is gone."
    shutil.rmtree(dest, ignore_errors=True)
    found = modules()
    pages = {f"api/{m.name}.md": api_page(m) for m in found}
    pages |= {"api/index.md": api_index(found), "command.md": command_page(), "readme.ko.md": korean_readme()}
    pages |= {path: json.dumps(nb, ensure_ascii=False) for path, nb in lessons().items()}
    for path, text in pages.items():
        (dest/path).parent.mkdir(parents=True, exist_ok=True)
        (dest/path).write_text(text, "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write(HERE/"_generated")
    mathjax(HERE/"_mathjax")
