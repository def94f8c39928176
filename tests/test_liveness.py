"""The memory that a traced program needs, counted from its equations."""

import jax
import jax.numpy as jnp
import pytest

from purejaxdqn.system.liveness import most_alive

ROW, TABLE = 100 * 4, 100 * 100 * 4
"""Bytes of the argument, and of the table of its pairs."""


def pairs(x):
    return x[:, None] * x


def sort(x):
    """What XLA does not fuse with what reads it."""
    return jax.lax.sort(x, dimension=0)


def of_table(x):
    """A number that needs a whole table."""
    return jnp.sum(sort(pairs(x)))


def loop(x):
    """In each of ten steps a table that dies there, and a row that is kept."""
    return jax.lax.scan(lambda carry, _: (carry + of_table(x), sort(x)), 0.0, length=10)


def over_rows(x):
    """Row by row of one table, which stays, into another."""
    return jax.lax.map(sort, sort(pairs(x)))


def until(x):
    return jax.lax.while_loop(lambda carry: carry[0] > 0, sort, x)


def in_either(x):
    return jax.lax.cond(x[0] > 0, of_table, lambda x: of_table(x) + 1, x)


def read_later(x):
    first = sort(x)
    return of_table(x) + first[0]


def not_read(x):
    return jax.lax.sort((x, x), num_keys=1)[0], of_table(x)


def fused_with_a_later_sum(x):
    table, number = pairs(sort(x)), of_table(x)
    return jnp.sum(table) + number


CASES = {
    "elementwise": (lambda x: jnp.sum(jnp.sin(jnp.cos(pairs(x)))), 0),
    "an elementwise call": (lambda x: jnp.sum(jnp.where(x > 1, x, 2.0)), 100),
    "booleans are kept": (lambda x: jnp.sum(jnp.where(pairs(x) > 1, pairs(x), 0.0)), TABLE // 4),
    "the argument's place is taken": (sort, ROW),
    "one in the place of another": (lambda x: sort(sort(x)), ROW),
    "two at once": (lambda x: sort(x) * sort(-x), 2 * ROW),
    "what is fused keeps its operand": (fused_with_a_later_sum, ROW + TABLE),
    "call": (jax.jit(of_table), TABLE),
    "one after another": (lambda x: of_table(x) + of_table(x), TABLE),
    "one is read later": (read_later, ROW + TABLE),
    "one is returned": (lambda x: (sort(x), of_table(x)), ROW + TABLE),
    "one is not read": (not_read, ROW + TABLE),
    "scan": (loop, 10 * ROW + TABLE),
    "scan over rows": (over_rows, 2 * TABLE + ROW),
    "while": (until, ROW),
    "branches": (in_either, TABLE),
}


@pytest.mark.parametrize("case", CASES)
def test_the_arrays_that_live_at_once_are_counted(case):
    function, expected = CASES[case]
    jaxpr = jax.make_jaxpr(function)(jnp.ones(100, jnp.float32))
    assert expected <= most_alive(jaxpr.jaxpr) <= expected + 40  # scalars


def test_results_take_the_places_of_arguments_that_are_free():
    jaxpr = jax.make_jaxpr(lambda x, y: (sort(x), sort(y)))(jnp.ones(100), jnp.ones(100))
    places = ((False, False), (True, False), (True, True))
    assert [most_alive(jaxpr.jaxpr, free) for free in places] == [2 * ROW, ROW, 0]


@pytest.mark.parametrize("loop", ["scan", "while"])
def test_a_loop_writes_its_carry_in_place_and_keeps_its_constants(loop):
    def function(x, y):
        if loop == "scan":
            return jax.lax.fori_loop(0, 9, lambda _, carry: carry + sort(y), x)
        return jax.lax.while_loop(lambda carry: carry[0] < 9, lambda carry: carry + sort(y), x)

    jaxpr = jax.make_jaxpr(function)(jnp.ones(100), jnp.ones(100))
    assert ROW <= most_alive(jaxpr.jaxpr, (True, True)) <= ROW + 40


def test_tokens_take_no_memory():
    jaxpr = jax.make_jaxpr(lambda: jax.lax.after_all(jax.lax.create_token()))()
    assert most_alive(jaxpr.jaxpr) == 0
