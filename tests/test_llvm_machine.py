"""From IR to machine code: what is loaded computes, is one module per source, is found on disk whole or not at all."""

import ctypes
import gc
import os
import stat
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest

import microgrid as mg
from microgrid.errors import MissingExtraError
from microgrid.execute.llvm import cache, machine

llvmlite = pytest.importorskip("llvmlite")

posix = pytest.mark.skipif(os.name == "nt", reason="owners and modes are POSIX")
KEY = bytes(range(32))
CODE = b"not run here"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the cache of a test is."""
    path = tmp_path / "cache"
    monkeypatch.setenv("MICROGRID_CACHE_DIR", str(path))
    return path


@pytest.fixture
def compiled(monkeypatch):
    """The sources that were compiled, in order."""
    sources = []
    compile_source = machine._compiled
    monkeypatch.setattr(machine, "_compiled", lambda source: (sources.append(source), compile_source(source))[1])
    return sources


def adding(number):
    return f"define double @f(double %x) nounwind {{\n %y = fadd double %x, {float(number)!r}\n ret double %y\n}}\n"


def call(module, value):
    return ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(module.address("f"))(value)


def only_entry(folder):
    (entry,) = folder.iterdir()
    return entry


# --- code in this process -------------------------------------------------------------------------------------


def test_a_loaded_function_computes():
    module = machine.load(adding(0.25))
    assert call(module, 1.5) == 1.75
    with pytest.raises(KeyError, match="g"):
        module.address("g")


def test_the_same_source_is_one_module(compiled):
    first, again, other = machine.load(adding(1)), machine.load(adding(1)), machine.load(adding(2))
    assert first is again
    assert first is not other
    assert (call(first, 1.0), call(other, 1.0)) == (2.0, 3.0)
    assert compiled == [adding(1), adding(2)]


def test_code_nobody_holds_is_freed():
    module = machine.load(adding(3))
    gone = weakref.ref(module), weakref.ref(module._engine)
    del module
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert call(machine.load(adding(3)), 0.0) == 3.0


def test_threads_that_load_at_once_compile_once(compiled):
    barrier = threading.Barrier(6)
    results, kept = [], []

    def work(index):
        barrier.wait()
        modules = [machine.load(adding(10 + (index + i) % 3)) for i in range(3)]
        results.append(sorted(call(module, 0.0) for module in modules))
        kept.extend(modules)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[10.0, 11.0, 12.0]] * 6
    assert len(compiled) == 3


def test_a_defined_symbol_is_called_and_a_new_definition_counts_for_later_modules():
    signature = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    triple, square = signature(lambda x: 3 * x), signature(lambda x: x * x)
    source = (
        "declare double @defined_by_a_test(double)\n"
        "define double @f(double %x) {\n %y = call double @defined_by_a_test(double %x)\n ret double %y\n}\n"
    )
    with pytest.raises(RuntimeError, match="declares 'defined_by_a_test', which nothing defines"):
        machine.load(source)
    machine.define("defined_by_a_test", ctypes.cast(triple, ctypes.c_void_p).value)
    first = machine.load(source)
    machine.define("defined_by_a_test", ctypes.cast(square, ctypes.c_void_p).value)
    second = machine.load(source)
    assert (call(first, 5.0), call(second, 5.0)) == (15.0, 25.0)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("define void @f() {\n ret i32 7\n}\n", "ret i32 7"),
        ("define i32 @f() {\n %a = add i32 %b, 1\n %b = add i32 1, 2\n ret i32 %a\n}\n", "%a = add i32 %b, 1"),
    ],
)
def test_refused_ir_is_shown(source, line, folder):
    with pytest.raises(RuntimeError, match="LLVM refuses the IR") as raised:
        machine.load(source)
    assert line in str(raised.value)
    assert not folder.exists()


# --- what the compiler does -----------------------------------------------------------------------------------


def test_vectors_as_wide_as_the_registers_stay_whole():
    source = (
        "define void @f(ptr noalias %x, ptr noalias %y) {{\n %a = load <{0} x {1}>, ptr %x, align 4\n"
        " %b = fmul <{0} x {1}> %a, %a\n store <{0} x {1}> %b, ptr %y, align 4\n ret void\n}}\n"
    )
    for dtype, x86, arm in (("float", "mulps", ".4s"), ("double", "mulpd", ".2d")):
        text = machine.assembly(source.format(machine.lanes(dtype), dtype))
        products = [line for line in text.splitlines() if x86 in line or ("fmul" in line and arm in line)]
        assert len(products) == 1
        if "mulp" in products[0]:
            assert {16: "xmm", 32: "ymm", 64: "zmm"}[machine.cpu().vector_bytes] in products[0]


LOOP = """
{helper}
define void @f(ptr noalias %scale, ptr noalias %x, ptr noalias %sum, i64 %n) nounwind {{
entry:
 {before}
 br label %loop
loop:
 %i = phi i64 [0, %entry], [%next, %loop]
 {carried}
 {inside}
 %next = add i64 %i, 1
 %more = icmp ult i64 %next, %n
 br i1 %more, label %loop, label %end
end:
 {after}
 ret void
}}
"""


def test_plain_code_becomes_what_careful_code_becomes():
    helper = """define internal float @scaled(float %v, float %s) alwaysinline {
 %slot = alloca float
 store float %v, ptr %slot
 %r = load float, ptr %slot
 %p = fmul float %r, %s
 ret float %p
}"""
    plain = """%s = load float, ptr %scale, align 4
 %p1 = getelementptr float, ptr %x, i64 %i
 %v1 = load float, ptr %p1, align 4
 %p2 = getelementptr float, ptr %x, i64 %i
 %v2 = load float, ptr %p2, align 4
 %r = call float @scaled(float %v1, float %s)
 %q = fmul float %r, %v2
 %old = load float, ptr %sum, align 4
 %new = fadd float %old, %q
 store float %new, ptr %sum, align 4"""
    careful = """%p1 = getelementptr float, ptr %x, i64 %i
 %v1 = load float, ptr %p1, align 4
 %r = fmul float %v1, %s
 %q = fmul float %r, %v1
 %new = fadd float %old, %q"""
    before = "%s = load float, ptr %scale, align 4\n %first = load float, ptr %sum, align 4"
    naive = LOOP.format(helper=helper, before="", carried="", inside=plain, after="")
    good = LOOP.format(
        helper="",
        before=before,
        carried="%old = phi float [%first, %entry], [%new, %loop]",
        inside=careful,
        after="store float %new, ptr %sum, align 4",
    )

    def instructions(source):
        return sorted(line.split()[0] for line in machine.assembly(source).splitlines() if line.startswith("\t"))

    assert instructions(naive) == instructions(good)


@pytest.mark.parametrize(
    ("triple", "features", "vector_bytes", "registers"),
    [
        ("x86_64-unknown-linux-gnu", {"avx": False, "avx512f": False}, 16, 16),
        ("x86_64-unknown-linux-gnu", {"avx": True, "avx512f": False}, 32, 16),
        ("x86_64-unknown-linux-gnu", {"avx": True, "avx512f": True}, 32, 16),
        ("x86_64-unknown-linux-gnu", {"avx": True, "avx512f": True, "avx512vl": True}, 64, 32),
        ("aarch64-unknown-linux-gnu", {"neon": True}, 16, 32),
        ("arm64-apple-darwin24.0.0", {}, 16, 32),
    ],
)
def test_vector_registers_of_a_processor(monkeypatch, triple, features, vector_bytes, registers):
    class Features(dict):
        def flatten(self):
            return ",".join(f"{'+' if on else '-'}{name}" for name, on in self.items())

    llvm = SimpleNamespace(
        get_host_cpu_features=lambda: Features(features),
        get_host_cpu_name=lambda: "some",
        get_process_triple=lambda: triple,
    )
    monkeypatch.setattr(machine, "_llvm", lambda: llvm)
    found = machine.cpu.__wrapped__()
    assert (found.vector_bytes, found.registers) == (vector_bytes, registers)


@pytest.mark.parametrize(("version", "found"), [((), ""), ((0, 44), r" \(found 0\.44\)")])
def test_without_llvmlite_the_extra_is_named(monkeypatch, version, found):
    monkeypatch.setattr(machine, "_installed", lambda: version)
    assert not machine.available()
    message = rf"llvmlite 0\.45 or newer, which is not installed{found}: pip install 'microgrid-autodiff\[fast\]'"
    with pytest.raises(MissingExtraError, match=message):
        machine.require()


def test_llvmlite_is_here():
    assert machine.available()
    machine.require()


# --- code on disk ---------------------------------------------------------------------------------------------


def test_what_was_compiled_once_is_read_afterwards(folder, compiled):
    assert call(machine.load(adding(20)), 1.0) == 21.0
    assert call(machine.load(adding(20)), 1.0) == 21.0
    assert compiled == [adding(20)]
    if os.name != "nt":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(only_entry(folder).stat().st_mode) == 0o600


def test_code_from_disk_calls_defined_symbols(compiled):
    signature = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    half = signature(lambda x: x / 2)
    machine.define("halved_by_a_test", ctypes.cast(half, ctypes.c_void_p).value)
    source = (
        "declare double @halved_by_a_test(double)\n"
        "define double @f(double %x) {\n %y = call double @halved_by_a_test(double %x)\n ret double %y\n}\n"
    )
    for _ in range(2):
        assert call(machine.load(source), 5.0) == 2.5
    assert len(compiled) == 1


def test_code_for_another_maker_is_not_read(monkeypatch, compiled):
    machine.load(adding(21))
    maker = machine._maker()
    assert {mg.__version__, llvmlite.__version__, machine.PASSES, machine.cpu().name, machine.cpu().features} < {*maker}
    for i in range(len(maker)):
        changed = (*maker[:i], maker[i] + "x", *maker[i + 1 :])
        monkeypatch.setattr(machine, "_maker", lambda changed=changed: changed)
        machine.load(adding(21))
    assert len(compiled) == 1 + len(maker)


def test_parts_of_a_key_do_not_run_together():
    assert cache.key("ab", "c") != cache.key("a", "bc")


def test_a_damaged_entry_is_compiled_again(folder, compiled):
    machine.load(adding(22))
    entry = only_entry(folder)
    whole = entry.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", whole + b"\0", whole[:-9] + b"\xff" + whole[-8:]):
        entry.write_bytes(damaged)
        assert call(machine.load(adding(22)), 1.0) == 23.0
        assert entry.read_bytes() == whole
    assert len(compiled) == 6


def test_no_flipped_byte_goes_unnoticed(folder):
    cache.write(KEY, CODE)
    entry = only_entry(folder)
    whole = entry.read_bytes()
    assert cache.read(KEY) == CODE
    for i in range(len(whole)):
        entry.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert cache.read(KEY) is None


def test_an_entry_under_the_name_of_another_is_not_read(folder):
    cache.write(KEY, CODE)
    other = bytes(32)
    only_entry(folder).rename(folder / f"{other.hex()}.code")
    assert cache.read(other) is None


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_entry_that_others_may_write_is_compiled_again(folder, compiled, mode):
    machine.load(adding(23))
    only_entry(folder).chmod(mode)
    assert call(machine.load(adding(23)), 1.0) == 24.0
    assert len(compiled) == 2
    assert stat.S_IMODE(only_entry(folder).stat().st_mode) == 0o600
    machine.load(adding(23))
    assert len(compiled) == 2


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_is_not_used(folder, compiled, mode):
    machine.load(adding(24))
    folder.chmod(mode)
    assert call(machine.load(adding(24)), 1.0) == 25.0
    machine.load(adding(25))
    assert len(compiled) == 3
    assert len(list(folder.iterdir())) == 1
    assert cache.clear() == 0


@posix
def test_what_belongs_to_somebody_else_is_not_used(folder, compiled, monkeypatch):
    machine.load(adding(26))
    nobody = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: nobody)
    assert call(machine.load(adding(26)), 1.0) == 27.0
    machine.load(adding(27))
    assert len(compiled) == 3
    assert len(list(folder.iterdir())) == 1


@posix
def test_the_entry_of_somebody_else_in_a_folder_of_ours_is_replaced(folder, compiled, monkeypatch):
    machine.load(adding(28))
    entry, status = only_entry(folder), os.fstat
    before = entry.stat().st_ino

    def foreign(descriptor):
        found = list(status(descriptor))
        found[stat.ST_UID] += 1
        return os.stat_result(found)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", foreign)
        machine.load(adding(28))
    assert len(compiled) == 2
    assert only_entry(folder).stat().st_ino != before


@posix
def test_a_link_is_not_followed(folder, compiled, tmp_path):
    machine.load(adding(29))
    entry, elsewhere = only_entry(folder), tmp_path / "elsewhere"
    entry.rename(elsewhere)
    content = elsewhere.read_bytes()
    entry.symlink_to(elsewhere)
    machine.load(adding(29))
    assert len(compiled) == 2
    assert not entry.is_symlink()
    assert elsewhere.read_bytes() == content


@posix
def test_a_pipe_is_not_waited_for(folder):
    cache.write(KEY, CODE)
    entry = only_entry(folder)
    entry.unlink()
    os.mkfifo(entry)
    assert cache.read(KEY) is None


def test_processes_that_compile_at_once(folder):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_llvm_machine import adding, call, machine\n"
        "print('ready', flush=True); input()\n"
        "print([call(machine.load(adding(30 + i)), 1.0) for i in range(6)])"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        said, _ = process.communicate(timeout=60)
        assert (said, process.returncode) == ("[31.0, 32.0, 33.0, 34.0, 35.0, 36.0]\n", 0)
    assert [path.suffix for path in folder.iterdir()] == [".code"] * 6
    assert [call(machine.load(adding(30 + i)), 1.0) for i in range(6)] == [31.0, 32.0, 33.0, 34.0, 35.0, 36.0]


def test_llvmlite_is_imported_only_when_it_is_needed():
    code = (
        "import sys; from microgrid.execute.llvm import machine; assert 'llvmlite' not in sys.modules;"
        "assert machine.available(); assert 'llvmlite.binding' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_place_that_cannot_be_written_is_done_without(folder, compiled, monkeypatch):
    folder.write_text("a file where the folder should be")
    assert call(machine.load(adding(40)), 1.0) == 41.0
    folder.unlink()

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert call(machine.load(adding(40)), 1.0) == 41.0
    assert list(folder.iterdir()) == []
    assert len(compiled) == 2


def test_no_place_no_cache(tmp_path, compiled, monkeypatch):
    monkeypatch.setenv("MICROGRID_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert call(machine.load(adding(41)), 1.0) == 42.0
    assert len(compiled) == 2
    assert cache.clear() == 0
    assert list(tmp_path.iterdir()) == []


def test_where_each_system_keeps_such_things(tmp_path, monkeypatch):
    monkeypatch.delenv("MICROGRID_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))

    def found(platform):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", platform)
            return cache.directory()

    assert found("linux") == tmp_path / "xdg" / "microgrid"
    assert found("darwin") == tmp_path / "Library" / "Caches" / "microgrid"
    assert found("win32") == tmp_path / "Local" / "microgrid" / "Cache"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert found("linux") == tmp_path / ".cache" / "microgrid"
    monkeypatch.delenv("LOCALAPPDATA")
    assert found("win32") is None


def write_in_order(folder, keys, size):
    for i, key in enumerate(keys):
        cache.write(key, bytes(size - cache.HEADER.size))
        os.utime(folder / f"{key.hex()}.code", (1000 + i, 1000 + i))


KEYS = [bytes([i]) * 32 for i in range(6)]


def test_the_least_recently_used_go_first(folder, monkeypatch):
    size = 1000
    monkeypatch.setattr(cache, "LIMIT", 128 * size)
    monkeypatch.setattr(cache, "EVERY", 10**9)
    write_in_order(folder, KEYS[:5], size)
    assert cache.read(KEYS[0]) is not None  # and so it is the last used
    monkeypatch.setattr(cache, "EVERY", 1)
    monkeypatch.setattr(cache, "ENTRIES", 3)
    cache.write(KEYS[5], CODE)
    assert [cache.read(key) is not None for key in KEYS] == [True, False, False, False, True, True]


def test_the_cache_stays_below_its_limit(folder, monkeypatch):
    size = 1000
    monkeypatch.setattr(cache, "LIMIT", 128 * size)
    largest = 0
    for i in range(300):
        cache.write(i.to_bytes(32, "big"), bytes(size - cache.HEADER.size))
        if i % 10 == 0:
            largest = max(largest, sum(path.stat().st_size for path in folder.iterdir()))
    assert 96 * size < largest <= 128 * size
    cache.write(KEY, bytes(size))
    assert cache.read(KEY) is None


def test_what_a_killed_process_left_goes_after_a_while(folder, monkeypatch):
    monkeypatch.setattr(cache, "EVERY", 1)
    cache.write(KEY, CODE)
    old, young = folder / f"{'0' * 32}.part", folder / f"{'1' * 32}.part"
    old.touch()
    young.touch()
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    cache.write(KEY, CODE)
    assert not old.exists()
    assert young.exists()


def test_clearing_removes_entries_and_nothing_else(folder):
    assert cache.clear() == 0
    cache.write(KEY, CODE)
    cache.write(bytes(32), CODE)
    (folder / f"{'0' * 32}.part").touch()
    (folder / "notes.txt").touch()
    assert cache.clear() == 2
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert cache.read(KEY) is None
