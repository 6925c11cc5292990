"""From LLVM IR to machine code for this computer.

All that llvmlite is asked for stands here. It is imported when it is first needed, and may be missing.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import re
import threading
import weakref
from dataclasses import dataclass
from typing import Any

from microgrid.errors import MissingExtraError
from microgrid.execute.llvm import cache

OLDEST = (0, 45)
"""Earlier ones have to be initialised by calls that raise in later ones."""

PASSES = "1"
"""Which way code is made: to be raised with every change of the passes or the code generation below."""

QUICKLY = False
"""Whether to compile in a fifth of the time what runs slower: for tests that run hundreds of programs once each."""

BYTES = {"float": 4, "double": 8}


def available() -> bool:
    """Whether llvmlite is installed, and new enough."""
    return _installed() >= OLDEST


def require() -> None:
    """Does nothing where `available`.

    Raises
    ------
    MissingExtraError
        If llvmlite is not installed, or too old.
    """
    if not available():
        found = ".".join(map(str, _installed()))
        raise MissingExtraError(
            f"compiling to machine code needs llvmlite {'.'.join(map(str, OLDEST))} or newer, which is not installed"
            f"{f' (found {found})' if found else ''}: pip install 'microgrid-autodiff[fast]'"
        )


@functools.cache
def _installed() -> tuple[int, ...]:
    """The version of llvmlite; () without it. This imports its top level, which does not load LLVM."""
    if importlib.util.find_spec("llvmlite") is None:
        return ()
    version = importlib.import_module("llvmlite").__version__
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


@functools.cache
def _llvm() -> Any:
    """llvmlite.binding, ready to make code for this computer. OSError where that forbids code made at run time."""
    require()
    llvm = importlib.import_module("llvmlite.binding")
    llvm.check_jit_execution()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the code is made for.

    name, features : as LLVM writes them
    vector_bytes : how wide a vector register is
    registers : how many of them there are
    """

    name: str
    features: str
    vector_bytes: int
    registers: int


@functools.cache
def cpu() -> Cpu:
    """The processor of this computer."""
    llvm = _llvm()
    features = llvm.get_host_cpu_features()
    wide = bool(features.get("avx512f") and features.get("avx512vl"))
    many = wide or llvm.get_process_triple().startswith(("aarch64", "arm64"))
    return Cpu(
        name=llvm.get_host_cpu_name(),
        features=features.flatten(),
        vector_bytes=64 if wide else 32 if features.get("avx") else 16,
        registers=32 if many else 16,
    )


def lanes(dtype: str) -> int:
    """How many numbers of a type ("float" or "double") a vector register holds."""
    return cpu().vector_bytes // BYTES[dtype]


class Module:
    """Machine code in this process, which stays for as long as somebody holds the module."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def address(self, name: str) -> int:
        """Where a function of the module starts.

        Raises
        ------
        KeyError
            If the module defines no function of that name.
        """
        found = int(self._engine.get_function_address(name))
        if not found:
            raise KeyError(name)
        return found


_lock = threading.RLock()
"""LLVM is used by one thread at a time."""

_loaded: weakref.WeakValueDictionary[bytes, Module] = weakref.WeakValueDictionary()
_defined: dict[str, int] = {}


def load(source: str) -> Module:
    """The machine code of a module of LLVM IR, as LLVM or an earlier process made it.

    The same source is the same module for as long as somebody holds it. Functions marked alwaysinline are
    inlined, others are not. Memory that is not known to be aligned for a vector has to be read and written
    with the alignment of its elements.

    Raises
    ------
    RuntimeError
        If LLVM refuses the source, or a symbol that it declares is nowhere defined: the mistake of who wrote it.
    """
    digest = hashlib.sha256(f"{QUICKLY} {source}".encode()).digest()
    with _lock:
        module = _loaded.get(digest)
        if module is None:
            key = cache.key(source, str(QUICKLY), *_maker())
            code = cache.read(key)
            if code is None:
                code = _compiled(source)
                cache.write(key, code)
            module = _loaded[digest] = Module(_linked(source, code))
        return module


def define(name: str, address: int) -> None:
    """Makes a symbol known to the modules that are loaded from now on."""
    with _lock:
        if _defined.get(name) != address:
            _llvm().add_symbol(name, address)
            _defined[name] = address
            _loaded.clear()  # modules that were linked with another address are not for new callers


def assembly(source: str) -> str:
    """What LLVM makes of a module of IR for this computer, in words."""
    with _lock:
        return str(_toolchain(QUICKLY)[0].emit_assembly(_optimised(source)))


@functools.cache
def _maker() -> tuple[str, ...]:
    """All but the source that the machine code depends on."""
    import microgrid

    llvm = _llvm()
    versions = microgrid.__version__, importlib.import_module("llvmlite").__version__, str(llvm.llvm_version_info)
    return (*versions, PASSES, llvm.get_process_triple(), cpu().name, cpu().features)


def _compiled(source: str) -> bytes:
    """Object code, as a compiler would write it to a file."""
    return bytes(_toolchain(QUICKLY)[0].emit_object(_optimised(source)))


def _target_machine(quickly: bool = False) -> Any:
    llvm = _llvm()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=cpu().name, features=cpu().features, opt=0 if quickly else 3, jit=True)


@functools.cache
def _toolchain(quickly: bool) -> tuple[Any, Any, Any, Any]:
    """A target machine, the options of passes, the passes over a module and those over each of its functions.

    LLVM's passes over whole modules would double the time for code that is no faster. Sources have explicit
    vectors and unroll what should be, so nothing looks for more of either.
    """
    llvm = _llvm()
    machine = _target_machine(quickly)
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_unrolling = options.loop_interleaving = False
    inline = llvm.create_new_module_pass_manager()
    inline.add_always_inliner_pass()
    inline.add_global_dead_code_eliminate_pass()
    simplify = llvm.create_pass_builder(machine, options).getFunctionPassManager()
    simplify.add_dead_store_elimination_pass()
    return machine, options, inline, simplify


def _optimised(source: str) -> Any:
    llvm = _llvm()
    machine, options, inline, simplify = _toolchain(QUICKLY)
    try:
        module = llvm.parse_assembly(source)
        module.verify()
    except RuntimeError as error:
        raise RuntimeError(f"LLVM refuses the IR: {error}") from None
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    builder = llvm.create_pass_builder(machine, options)  # one that is used again gets slower with every use
    inline.run(module, builder)
    for function in module.functions:
        if not function.is_declaration and not QUICKLY:
            simplify.run(function, builder)
    return module


def _linked(source: str, code: bytes) -> Any:
    """An engine that holds the code, linked with the symbols that were defined."""
    llvm = _llvm()
    for pair in re.findall(r'^\s*declare [^@\n]*@"?([\w.$-]+)|^\s*@"?([\w.$-]+)"? = external ', source, re.MULTILINE):
        name = "".join(pair)
        if not name.startswith("llvm.") and llvm.address_of_symbol(name) is None:  # LLVM would end the process
            raise RuntimeError(f"the IR declares {name!r}, which nothing defines")
    nothing = llvm.parse_assembly("")
    engine = llvm.create_mcjit_compiler(nothing, _target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.remove_module(nothing)  # compiling it would take longer than all the rest
    engine.finalize_object()
    return engine
