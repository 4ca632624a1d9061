"""Functions of machine code, built and compiled for the processor that the process runs on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from threading import Lock
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir

_engines: list[Any] = []  # own the machine code


def made_once(make: Callable[..., int]) -> Callable[..., int]:
    """`functools.cache`, but who wants what another thread is making waits for that."""
    cached, making = cache(make), Lock()

    @wraps(make)
    def made(*wanted: Any) -> int:
        with making:
            return cached(*wanted)

    return made


def function(returned: Any, arguments: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """A builder at the start of a new function, and the function's arguments."""
    made = ir.Function(ir.Module(), ir.FunctionType(returned, arguments), "made")
    return ir.IRBuilder(made.append_basic_block("entry")), made.args


def blocks(builder: Any, *names: str) -> tuple[Any, ...]:
    """The block at hand and new ones; it leads to the first of them, where the builder is now."""
    here = builder.block
    made = [builder.function.append_basic_block(name) for name in names]
    builder.branch(made[0])
    builder.position_at_end(made[0])
    return here, *made


@contextmanager
def counting(builder: Any, stop: Any, step: Any = None) -> Iterator[Any]:
    """What the context builds is done for 0, step, 2 step … below `stop`, and at least once.

    The context gets the number; `step` is 1 if it is not given.
    """
    before, turn = blocks(builder, "turn")
    index = builder.phi(stop.type)
    yield index
    following = builder.add(index, stop.type(1) if step is None else step)
    incoming(index, (stop.type(0), before), (following, builder.block))
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", following, stop), turn, after)
    builder.position_at_end(after)


def incoming(phi: Any, *values: tuple[Any, Any]) -> None:
    """Give a phi node its values, each with the block that it comes from."""
    for value, block in values:
        phi.add_incoming(value, block)


def declared(builder: Any, name: str, returned: Any, *arguments: Any) -> Any:
    """A function from elsewhere: an intrinsic of LLVM, or one of the C library."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(returned, arguments), name)


def compiled(builder: Any) -> int:
    """The address of the function as machine code."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )
    module = llvm.parse_assembly(str(builder.module))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address("made"))
