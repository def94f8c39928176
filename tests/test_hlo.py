"""Counting what a compiled iteration runs and moves, in a module that was written and counted by hand."""

import pytest

from benchmarks.compiled import _one_program, nest_of
from benchmarks.hlo import Kernel, bytes_of, host_calls, iteration, open_loops, traffic
from purejaxdqn import load_config
from purejaxdqn.core.plan import make_plan

MODULE = """HloModule by_hand, is_scheduled=true

%put (p0: f32[100,4], p1: s32[2,1], p2: f32[2,4]) -> f32[100,4] {
  %p0 = f32[100,4]{1,0} parameter(0)
  %p1 = s32[2,1]{1,0} parameter(1)
  %p2 = f32[2,4]{1,0} parameter(2)
  ROOT %scatter.1 = f32[100,4]{1,0} scatter(%p0, %p1, %p2), update_window_dims={1}, to_apply=%last
}

%take (p3: f32[100,4], p4: s32[8,1]) -> (f32[8,4], pred[8]) {
  %p3 = f32[100,4]{1,0} parameter(0)
  %bitcast.1 = f32[100,4]{1,0} bitcast(%p3)
  %p4 = s32[8,1]{1,0} parameter(1)
  %gather.1 = f32[8,4]{1,0} gather(%bitcast.1, %p4), offset_dims={1}
  %less.1 = pred[8]{0} compare(%p4, %p4), direction=LT
  ROOT %tuple.1 = (f32[8,4]{1,0}, pred[8]{0}) tuple(%gather.1, %less.1)
}

%step (arg: (s32[], f32[16])) -> (s32[], f32[16]) {
  %arg = (s32[], f32[16]{0}) parameter(0)
  %x.1 = f32[16]{0} get-tuple-element(%arg), index=1
  %i.1 = s32[] get-tuple-element(%arg), index=0
  %double.1 = f32[16]{0} add(%x.1, %x.1)
  ROOT %tuple.2 = (s32[], f32[16]{0}) tuple(%i.1, %double.1)
}

%body (state: (s32[], f32[100,4], s32[2,1], f32[2,4], s32[8,1], f32[16])) -> (s32[]) {
  %state = (s32[], f32[100,4]{1,0}, s32[2,1]{1,0}, f32[2,4]{1,0}, s32[8,1]{1,0}, f32[16]{0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%state), index=0
  %buffer = f32[100,4]{1,0} get-tuple-element(%state), index=1
  %at = s32[2,1]{1,0} get-tuple-element(%state), index=2
  %rows = f32[2,4]{1,0} get-tuple-element(%state), index=3
  %which = s32[8,1]{1,0} get-tuple-element(%state), index=4
  %x.2 = f32[16]{0} get-tuple-element(%state), index=5
  %put.1 = f32[100,4]{1,0} fusion(%buffer, %at, %rows), calls=%put, metadata={op_name="a/closed_call/scatter"}
  %take.1 = (f32[8,4]{1,0}, pred[8]{0}) fusion(%put.1, %which), kind=kLoop, calls=%take
  %empty.1 = f32[100,4]{1,0} custom-call(), custom_call_target="AllocateBuffer", metadata={op_name="a/empty"}
  %start = (s32[], f32[16]{0}) tuple(%i.2, %x.2)
  %while.1 = (s32[], f32[16]{0}) while(%start), body=%step, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %copy.1 = s32[] copy(%i.2)
}

ENTRY %main (a: (s32[])) -> (s32[]) {
  %a = (s32[]) parameter(0)
  ROOT %while.2 = (s32[]) while(%a), condition=%more, body=%body, backend_config={"known_trip_count":{"n":"50"}}
}
"""


def test_kernels_and_bytes_are_counted():
    put, take, double, copy = iteration(MODULE, (1, 50))
    assert put == Kernel("put.1", read=2 * 4 + 2 * 4 * 4, written=2 * 4 * 4, times=1, source="scatter")
    assert take[1:4] == (8 * 4 * 4 + 8 * 4, 8 * 4 * 4 + 8, 1)
    assert double == Kernel("double.1", read=2 * 16 * 4, written=16 * 4, times=3, source="")
    assert copy[1:4] == (4, 4, 1)
    assert traffic([put, double]) == 72 + 3 * 192


@pytest.mark.parametrize(
    ("preset", "steps", "trips"), [("dqn", 500_000, 50), ("pqn", 500_000, 25), ("pqn", 20_000, 10)]
)
def test_without_replay_an_iteration_is_a_rollout_and_its_loop_that_of_the_epoch(preset, steps, trips):
    nest = nest_of(make_plan(load_config(("cartpole_cleanrl", preset), [f"total_timesteps={steps}"])))
    assert next((n for n in reversed(nest) if n > 1), 1) == trips


def test_a_loop_that_is_not_there_is_no_iteration():
    with pytest.raises(ValueError, match="0 loops run 49 times, not one"):
        iteration(MODULE, [49])


def test_a_loop_of_unknown_length_is_not_counted_as_one():
    with pytest.raises(ValueError, match=r"while\.1 is a loop of unknown length"):
        iteration(MODULE.replace('{"n":"3"}', "{}"), [50])


def test_an_operand_that_is_also_read_whole_counts_whole():
    whole = MODULE.replace("compare(%p4, %p4)", "compare(%bitcast.1, %p4)")
    assert iteration(whole, [50])[1].read == 100 * 4 * 4 + 8 * 4


def test_what_is_only_turned_round_is_read_nonetheless():
    turned = "ROOT %turned.1 = f32[4,100]{0,1} transpose(%bitcast.1), dimensions={1,0}"
    module = MODULE.replace("ROOT %tuple.1 = (f32[8,4]{1,0}, pred[8]{0}) tuple(%gather.1, %less.1)", turned)
    assert iteration(module, [50])[1][1:3] == (100 * 4 * 4 + 8 * 4, 100 * 4 * 4)


def test_work_on_the_sparse_cores_of_a_tpu_counts_once():
    offloaded = """%beside (x.9: f32[16]) -> f32[16] {
  %x.9 = f32[16]{0} parameter(0)
  ROOT %triple.1 = f32[16]{0} add(%x.9, %x.9)
}, execution_thread="sparsecore"

%body ("""
    calls = """  %start.1 = ((f32[16]{0}), f32[16]{0}, u32[]{:S(8)}) call-start(%x.2), to_apply=%beside
  %done.1 = f32[16]{0} call-done(%start.1)
  ROOT %copy.1 ="""
    kernels = iteration(MODULE.replace("%body (", offloaded).replace("  ROOT %copy.1 =", calls), [50])
    before = iteration(MODULE, [50])
    assert kernels == [*before[:-1], Kernel("triple.1", read=2 * 64, written=64, times=1, source=""), before[-1]]


@pytest.mark.parametrize("op", ["conditional", "call", "all-reduce-start"])
def test_what_is_not_understood_is_not_counted(op):
    with pytest.raises(ValueError, match=rf"copy\.1: the cost of a {op} is unknown"):
        iteration(MODULE.replace("s32[] copy(%i.2)", f"s32[] {op}(%i.2)"), [50])
    with pytest.raises(ValueError, match="not an instruction"):
        iteration(MODULE.replace("%double.1 = ", "%double.1 "), [50])


@pytest.mark.parametrize(
    ("kind", "size"), [("f32[]", 4), ("pred[3,5]{1,0}", 15), ("(s32[2]{0}, bf16[4]{0}, u64[], token[])", 8 + 8 + 8)]
)
def test_bytes_of_a_type(kind, size):
    assert bytes_of(kind) == size


def test_a_nest_is_told_by_the_loops_around_it():
    inner = next(one for one in iteration(MODULE, [50]) if one.times == 3)
    assert iteration(MODULE, [50, 3]) == [inner._replace(times=1)]
    for nest in ([49, 3], [3, 50], [2]):
        with pytest.raises(ValueError, match="0 loops run"):
            iteration(MODULE, nest)


@pytest.mark.parametrize("op", ["infeed", "outfeed", "send", "recv", "conditional", "recv-done"])
def test_what_waits_for_the_host_or_branches_is_found(op):
    assert host_calls(MODULE) == []
    assert host_calls(MODULE.replace("s32[] copy(%i.2)", f"s32[] {op}(%i.2)")) == [op.removesuffix("-done")]


def test_a_call_of_the_host_is_found_by_its_target():
    called = MODULE.replace("AllocateBuffer", "xla_ffi_python_cpu_callback")
    assert host_calls(called) == ["xla_ffi_python_cpu_callback"]


@pytest.mark.parametrize(("of_step", "frame"), [(0, "1"), (1, "2"), (1, "3")])
def test_loops_without_a_length_are_named_by_their_source(of_step, frame):
    assert open_loops(MODULE) == []
    tables = """
FileNames
1 "/a/b/loop.py"
2 "/a/evaluation.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=3}
2 {file_name_id=2 function_name_id=7 line=3}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%put"""
    length = 'backend_config={"known_trip_count":{"n":"' + ("3" if of_step else "50") + '"}}'
    assert MODULE.count(length) == 1
    module = MODULE.replace(length, f'metadata={{op_name="a/while" stack_frame_id={frame}}}').replace(
        "\n%put", tables, 1
    )
    source = {"1": "loop.py", "2": "evaluation.py", "3": "unknown source"}[frame]
    assert open_loops(module) == [source]
    assert _one_program(module, "gpu") == f"yes; 1 loop of unknown length: {source}"
    assert _one_program(module, "tpu") == _one_program(MODULE, "gpu") == "yes"
    twice = module.replace('"known_trip_count":{"n":', '"other":{"n":')
    assert open_loops(twice) == sorted([source, "unknown source"])
    assert _one_program(twice, "gpu").startswith("yes; 2 loops of unknown length: ")
    assert _one_program(twice.replace("AllocateBuffer", "host_callback"), "gpu") == "host_callback"


def test_the_memory_of_a_tpus_core_is_none_and_a_copy_from_or_to_it_is_counted_once():
    inside = "f32[4,8]{1,0:T(8,128)S(1)}"
    assert bytes_of(f"(f32[4,8]{{1,0:T(8,128)}}, {inside}, u32[]{{:S(2)}})") == 4 * 8 * 4
    copies = f"""  %copy-start.1 = ({inside}, f32[4,8]{{1,0}}, u32[]{{:S(2)}}) copy-start(%buffer)
  %copy-done.1 = {inside} copy-done(%copy-start.1)
  %copy-start.2 = (f32[4,8]{{1,0}}, {inside}, u32[]{{:S(2)}}) copy-start(%copy-done.1)
  %copy-done.2 = f32[4,8]{{1,0}} copy-done(%copy-start.2)
  ROOT %copy.1"""
    found = [one[1:3] for one in iteration(MODULE.replace("  ROOT %copy.1", copies, 1), [50]) if "done" in one.name]
    assert found == [(4 * 8 * 4, 0), (0, 4 * 8 * 4)]


def test_rows_that_are_written_in_place_or_sliced_are_counted_alone():
    row = "  %row.1 = f32[2,4]{1,0} dynamic-slice(%buffer, %i.2), dynamic_slice_sizes={2,4}\n"
    row += "  %written.1 = f32[100,4]{1,0} dynamic-update-slice(%buffer, %rows, %i.2, %i.2)\n  ROOT %copy.1"
    found = {one.name: one[1:3] for one in iteration(MODULE.replace("  ROOT %copy.1", row, 1), [50])}
    assert found["row.1"] == found["written.1"] == (2 * 4 * 4, 2 * 4 * 4)


def test_a_loop_without_its_length_has_that_of_its_counter():
    counter = """%more (b: (s32[])) -> pred[] {
  %b = (s32[]) parameter(0)
  %c = s32[] constant(50)
  %i.3 = s32[] get-tuple-element(%b), index=0
  ROOT %lt.1 = pred[] compare(%i.3, %c), direction=LT
}

ENTRY"""
    told = MODULE.replace(', backend_config={"known_trip_count":{"n":"50"}}', "")
    with pytest.raises(ValueError, match="0 loops run"):
        iteration(told, [50])
    assert iteration(told.replace("ENTRY", counter), [50]) == iteration(MODULE, [50])
