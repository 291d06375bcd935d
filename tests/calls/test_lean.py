"""The distance of two clocks: followed slowly, and learnt anew when they have drifted to the next tick."""

from __future__ import annotations

from sipserver.calls.lean import Lean

MS = 1_000_000


def test_what_is_near_to_where_it_is_expected_fits() -> None:
    lean = Lean()
    assert [lean.fits(ahead * MS) for ahead in (-20, -12, -11, 0, 11, 12, 20)] == [-1, -1, 0, 0, 0, 1, 1]
    for _ in range(50):
        lean.follow(9 * MS)
    assert [lean.fits(ahead * MS) for ahead in (-4, -2, 9, 20, 21)] == [-1, 0, 0, 0, 1]


def test_the_distance_is_followed_slowly() -> None:
    lean = Lean()
    lean.follow(8 * MS)
    assert lean.ns == 2 * MS
    for _ in range(50):
        lean.follow(8 * MS)
    before = lean.ns
    lean.follow(0)
    assert before * 3 // 4 < lean.ns < before


def test_clocks_that_drift_apart_change_partners_once() -> None:
    """One gains a millisecond every ten ticks: every 200 ticks it is a whole tick ahead."""
    lean, ahead, changes = Lean(), 0, 0
    for _ in range(1000):
        ahead += MS // 10
        while fits := lean.fits(ahead):
            ahead -= fits * 20 * MS
            changes += 1
        lean.follow(ahead)
    assert changes == 5
    assert abs(ahead) <= 20 * MS
