"""Runs loops on Numba's threads without `parallel=True`, whose loops go through the compiler three
times and through a dozen more of its passes: half of what a kernel took to compile."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

from cpu_numba.kernels.compiled.emit import I64

_BYTES = ir.IntType(8).as_pointer()
#: What Numba's threads call: arguments, of which each is moved by its step, counts, steps, data.
_TASK = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), I64.as_pointer(), I64.as_pointer(),
                                        _BYTES])
_RUN = ir.FunctionType(ir.VoidType(), [_BYTES] * 5 + [I64] * 3)


@intrinsic
def on_threads(typing_context, work, count, alone, args):
    """Call work(i, *args) for every i below `count`: in equal shares on all threads, or on the
    calling one if `alone`. Errors of `work` are lost: it has none to raise."""
    kinds = (types.intp, *(types.unliteral(a) for a in args.types))
    made = work.dispatcher.overloads[work.get_call_type(typing_context, kinds, {}).args]

    def code(context, builder, signature, values):
        _launch_threads()  # names the functions below
        context.add_linking_libs([made.library])
        data = ir.LiteralStructType([I64, I64, values[3].type])
        task = _task(context, builder.module, made, args, data)
        room = cgutils.alloca_once(builder, data)
        alone = builder.trunc(values[2], ir.IntType(1))
        threads = builder.select(alone, I64(1), builder.call(cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(I64, []), "get_num_threads"), []))
        for place, value in enumerate((values[1], threads, values[3])):
            builder.store(value, cgutils.gep_inbounds(builder, room, 0, place))
        room = builder.bitcast(room, _BYTES)
        # the argument is no address but the number of a share, from 0 in steps of 1
        first, shares, step = (cgutils.alloca_once_value(builder, v) for v in (
            ir.Constant(_BYTES, None), threads, I64(1)))
        with builder.if_else(alone) as (then, otherwise):
            with then:
                builder.call(task, [first, shares, step, room])
            with otherwise:
                _run(context, builder, [task, first, shares, step, room], threads)
        return context.get_dummy_value()
    return types.void(work, types.intp, types.boolean, args), code


def _run(context, builder, args, threads):
    """Let Numba's threads run a task, and other threads of Python run meanwhile. Where it has one
    thread, the calling one runs it: the way to the other and back takes longer than many a loop."""
    api = context.get_python_api(builder)
    held = api.gil_ensure()
    state = api.save_thread()
    run = cgutils.get_or_insert_function(builder.module, _RUN, "numba_parallel_for")
    with builder.if_else(builder.icmp_signed("==", threads, I64(1))) as (then, otherwise):
        with then:
            builder.call(args[0], args[1:])
        with otherwise:
            builder.call(run, [*(builder.bitcast(a, _BYTES) for a in args), I64(0), I64(1),
                               threads])
    api.restore_thread(state)
    api.gil_release(held)


def _task(context, module, made, args, data):
    """Emit the task that calls `made` for the shares it is given."""
    task = ir.Function(module, _TASK, module.get_unique_name(f"{made.fndesc.mangled_name}.task"))
    task.linkage = "internal"
    builder = ir.IRBuilder(task.append_basic_block())
    room = builder.bitcast(task.args[3], data.as_pointer())
    count, threads, values = (builder.load(cgutils.gep_inbounds(builder, room, 0, place))
                              for place in range(3))
    parts = [builder.extract_value(values, place) for place in range(len(args))]
    share = builder.ptrtoint(builder.load(task.args[0]), I64)
    last = builder.add(share, builder.load(task.args[1]))
    begin, end = (builder.sdiv(builder.mul(count, edge), threads) for edge in (share, last))
    with cgutils.for_range_slice(builder, begin, end, I64(1)) as (index, _):
        context.call_internal_no_propagate(builder, made.fndesc, made.signature, [index, *parts])
    builder.ret_void()
    return task
