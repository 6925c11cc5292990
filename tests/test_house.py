"""The house rules: imports run one way, and every file and command that README names is there."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    ["errors", "recording", "time_axis", "outline"],
    ["numpy_functions", "scope", "counts"],
    ["backward"],
    ["tensor"],
    ["primitive"],
    ["ops"],
    ["leaves"],
    ["names"],
    ["graph"],
    ["cycles"],
    ["sequences"],
    ["unroll", "differentiate", "rebuild", "drawn_inputs"],
    ["explain"],
    ["schedule"],
    ["execute", "rewrite"],
    ["compiled"],
    ["files"],
    ["functional", "nn"],
    ["jacobians"],
    ["check", "optim", "data", "sampling"],
    ["training"],
]


def imported(file: Path) -> set[str]:
    """The modules a file imports at its top level, dotted."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_run_one_way():
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    for name, own in level.items():
        path = ROOT / "microgrid" / name
        for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            for module in imported(file):
                parts = module.split(".")
                if parts[0] == "microgrid" and len(parts) > 1 and parts[1] in level:
                    assert level[parts[1]] <= own, f"{file.name} imports {module}, which stands above it"


def test_the_engine_never_imports_viz():
    for file in (ROOT / "microgrid").rglob("*.py"):
        if "demo" not in file.parts:
            assert not [module for module in imported(file) if module.split(".")[0] == "viz"], file


def test_the_engine_needs_numpy_and_networkx_only():
    code = (
        "import sys; "
        "sys.modules.update(dict.fromkeys(['graphviz', 'pygraphviz', 'tqdm', 'matplotlib', 'safetensors'])); "
        "import microgrid as mg; x = mg.tensor(2.0); (x * x).backward(); print(x.grad)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "4.0\n"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "examples/README.md"])
def test_what_a_document_links_to_is_there(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:\s]+)\)", text) + re.findall(r'src="([^":]+)"', text)
    missing = [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []


def test_the_code_in_readme_runs(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^( *```python\n.*?)```", readme, re.DOTALL | re.MULTILINE)
    blocks = [textwrap.dedent(block).removeprefix("```python\n") for block in found]
    assert len(blocks) == 11
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("epoch ")]  # of progress
    assert (done.returncode, complaints) == (0, [])
    assert (tmp_path / "wave.csv").read_text().count("\n") == 21
    assert "[Cycle(h → matmul → add → tanh → h)]" in done.stdout
    assert "'loss' depends on 'h', which feeds itself" in done.stdout
    assert (tmp_path / "rnn.svg").exists()


def test_every_command_line_flag_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = subprocess.run([sys.executable, "-m", "microgrid", "--help"], capture_output=True, text=True, check=True)
    for flag in set(re.findall(r"--[a-z]+", shown.stdout)) - {"--help"}:
        assert flag in readme


def test_documents_have_no_figures_left_to_fill_in():
    for document in ROOT.glob("*.md"):
        text = document.read_text(encoding="utf-8")
        assert not re.findall(r"\b(?:TODO|FIXME|TBD|[A-Z]{2,}_[A-Z_]+)\b(?!=)", text), document
