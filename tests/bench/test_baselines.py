import random

import pytest

from bench.baselines import BASELINES, BOOT_S, SIZES, Karpenter, OneEach, Ray, Threshold, Work, fluid
from bench.trace import CASES, Point, at_wait, ours

DAY = 86400.0


CASE = CASES[0]


def jobs(
    count: int = 300, seed: int = 1, *, every: float = 120.0, sizes: tuple[int, ...] = (1, 1, 1, 2, 4, 8)
) -> list[Work]:
    chance = random.Random(seed)
    at, found = 0.0, []
    for _ in range(count):
        at += chance.expovariate(1 / every)
        # Whole seconds: the product looks at most once a second.
        found.append(Work(float(round(at)), float(chance.randint(60, 9000)), chance.choice(sizes)))
    return found


def test_one_each_pays_for_boot_and_run_of_what_does_not_fit() -> None:
    work = [Work(0.0, 1000.0, 8), Work(10.0, 500.0, 2), Work(20.0, 50.0, 8, nodes=2)]
    result = OneEach(work, 8, DAY).run()
    assert sorted(result.paid) == [(2, 10.0, 510.0 + BOOT_S), (8, 20.0, 70.0 + BOOT_S), (8, 20.0, 70.0 + BOOT_S)]
    assert sorted(result.waits) == [(0.0, 0.0), (10.0, BOOT_S), (20.0, BOOT_S)]
    assert result.gpu_hours((10.0, 310.0)) == pytest.approx(
        (2 * 300 + 16 * 230) / 3600 + 16 * 20 / 3600 - 16 * 20 / 3600
    )


def test_fluid_is_the_area_over_what_is_owned() -> None:
    work = [Work(0.0, 3600.0, 8), Work(1800.0, 3600.0, 4)]
    assert fluid(work, 8, (0.0, DAY)) == pytest.approx(2.0)
    assert fluid(work, 0, (0.0, DAY)) == pytest.approx(12.0)
    assert fluid(work, 8, (0.0, 2700.0)) == pytest.approx(1.0)


def test_karpenter_packs_those_that_wait_and_ray_keeps_machines_idle() -> None:
    burst = [Work(0.0, 100.0, 1) for _ in range(8)]
    assert [gpus for gpus, _, _ in Karpenter(burst, 0, DAY).run().paid] == [8]
    result = Ray([Work(0.0, 100.0, 4)], 0, DAY).run()
    assert result.paid == ((4, 0.0, BOOT_S + 100.0 + 300.0),)


def test_threshold_has_machines_ready() -> None:
    work = [Work(float(at), 5000.0, 1) for at in range(0, 6000, 60)]
    result = Threshold(work, 64, DAY).run()
    assert result.wait(0.95, (0.0, DAY)) == 0.0


def test_a_higher_threshold_costs_less_and_waits_longer() -> None:
    work = jobs()
    tight, usual = Threshold(jobs(), 16, 10 * DAY, high=1.0, low=0.8).run(), Threshold(work, 16, 10 * DAY).run()
    assert tight.gpu_hours((0.0, 10 * DAY)) < usual.gpu_hours((0.0, 10 * DAY))
    assert tight.mean_wait((0.0, 10 * DAY)) > usual.mean_wait((0.0, 10 * DAY))


def test_a_curve_is_read_between_its_settings() -> None:
    curve = [(3.0, 10.0, 0.0, 0.0), (2.0, 110.0, 0.0, 0.0), (2.5, 120.0, 0.0, 0.0), (4.0, 10.0, 0.0, 0.0)]
    assert [at_wait(curve, wait) for wait in (5, 10, 60, 110, 500)] == [None, 3.0, 2.5, 2.0, 2.0]
    assert at_wait([], 5) is None


@pytest.mark.parametrize("name", BASELINES)
def test_all_run_everything_and_none_is_below_the_work_it_rents_for(name: str) -> None:
    work = jobs()
    result = BASELINES[name](work, 32, 10 * DAY).run()
    assert len(result.waits) == len(work)
    rented = sum(one.gpus * one.nodes * one.duration_s for one in work if one.rented)
    assert result.gpu_hours((0.0, 10 * DAY)) >= rented / 3600


def test_the_product_agrees_with_one_machine_a_session_where_nothing_is_moved() -> None:
    span = (0.0, 10 * DAY)
    chance = random.Random(5)
    # Owned nodes are full throughout, and nothing ends while another boots: there is nothing to use again.
    work = [Work(0.0, 30 * DAY, 8) for _ in range(2)]
    work += [Work(n * 1000.0, chance.randint(1, 40) * 1000.0 + 500.0, chance.choice(SIZES)) for n in range(1, 400)]
    theirs = OneEach(work, 16, span[1]).run()
    mine = ours(work, Point(CASE, 16, 0.0, home=False), span[1])
    assert mine.gpu_hours(span) == pytest.approx(theirs.gpu_hours(span), rel=0.01)
    assert mine.wait(0.95, span) == pytest.approx(theirs.wait(0.95, span), abs=1.0)


def test_homecoming_costs_less_than_one_machine_a_session_at_no_longer_wait() -> None:
    span = (0.0, 10 * DAY)
    theirs = OneEach(jobs(800, every=60.0, sizes=(1,)), 64, span[1]).run()
    mine = ours(jobs(800, every=60.0, sizes=(1,)), Point(CASE, 64, 1.0), span[1])
    assert mine.gpu_hours(span) < 0.9 * theirs.gpu_hours(span)
    assert mine.wait(0.95, span) <= theirs.wait(0.95, span) + 1.0
