"""Ray's autoscaler, v1 and v2: which nodes it would launch for pending requests, and how many fit on running ones.

Both score node types by how well requests use their resources; neither looks at prices. Where Ray is not installed
(`make bench` installs it), `version()` is None and nothing else may be called.
"""

import importlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from atoll.instance import Shape
from atoll.slots import Request, Slots

QUICK, MOST = 100, 1000
"""Requests up to which Ray takes a second or so, and up to which it is run: its time grows with their square."""


def version() -> str | None:
    """Return the version of Ray that is installed, or None."""
    try:
        return str(importlib.import_module("ray").__version__)
    except ImportError:
        return None


def launch_v1(asks: Sequence[Request], shapes: Sequence[Shape]) -> tuple[float, float]:
    """Return the hourly price in units of what v1 would launch for these requests, and the seconds it took."""
    scheduler = importlib.import_module("ray.autoscaler._private.resource_demand_scheduler")
    tracker = importlib.import_module("ray.autoscaler._private.node_provider_availability_tracker")
    types = {shape.name: {"resources": _resources(shape.slots), "max_workers": len(asks)} for shape in shapes}
    wanted = [_asked(ask) for ask in asks]
    scorer = partial(
        scheduler._default_utilization_scorer,
        node_availability_summary=tracker.NodeAvailabilitySummary(node_availabilities={}),
    )
    began = time.process_time()
    nodes, left = scheduler.get_nodes_for(types, {}, "", len(asks), wanted, scorer)
    took = time.process_time() - began
    if left:
        raise AssertionError(f"Ray v1 left {len(left)} requests out")
    return _price(nodes, shapes), took


def launch_v2(asks: Sequence[Request], shapes: Sequence[Shape]) -> tuple[float, float]:
    """Return the hourly price in units of what v2 would launch for these requests, and the seconds it took."""
    reply, took = _schedule(asks, _types(shapes, len(asks)), ())
    if reply.infeasible_resource_requests:
        raise AssertionError(f"Ray v2 left {len(reply.infeasible_resource_requests)} requests out")
    return _price({each.instance_type: each.count for each in reply.to_launch}, shapes), took


def place_v2(asks: Sequence[Request], nodes: Sequence[tuple[Slots, Slots]]) -> tuple[int, float]:
    """Return how many requests fit on running nodes (capacity and free slots) as v2 sees it, and the seconds it took.

    Nothing can be launched. v2 does not tell which request went where.
    """
    schema = importlib.import_module("ray.autoscaler.v2.schema")
    manager = importlib.import_module("ray.core.generated.instance_manager_pb2")
    state = importlib.import_module("ray.core.generated.autoscaler_pb2")
    instances = [
        schema.AutoscalerInstance(
            cloud_instance_id=f"c{n}",
            ray_node=state.NodeState(
                node_id=f"n{n}".encode(),
                ray_node_type_name="node",
                total_resources=_resources(capacity),
                available_resources=_resources(free),
                status=state.NodeStatus.RUNNING,
            ),
            im_instance=manager.Instance(
                instance_id=f"i{n}", instance_type="node", status=manager.Instance.RAY_RUNNING, node_id=f"n{n}"
            ),
        )
        for n, (capacity, free) in enumerate(nodes)
    ]
    node = Shape(provider="", name="node", zone="", slots=nodes[0][0], price=None)
    reply, took = _schedule(asks, _types([node], len(nodes)), instances)
    return len(asks) - len(reply.infeasible_resource_requests), took


def _schedule(asks: Sequence[Request], types: Mapping[str, Any], instances: Sequence[Any]) -> tuple[Any, float]:
    scheduler = importlib.import_module("ray.autoscaler.v2.scheduler")
    state = importlib.import_module("ray.core.generated.autoscaler_pb2")
    wanted = [
        state.ResourceRequestByCount(request=state.ResourceRequest(resources_bundle=_asked(ask)), count=count)
        for ask, count in Counter(asks).items()
    ]
    request = scheduler.SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types,
        resource_requests=wanted,
        current_instances=list(instances),
    )
    began = time.process_time()
    reply = scheduler.ResourceDemandScheduler().schedule(request)
    return reply, time.process_time() - began


def _types(shapes: Sequence[Shape], most: int) -> dict[str, Any]:
    config = importlib.import_module("ray.autoscaler.v2.instance_manager.config")
    return {
        shape.name: config.NodeTypeConfig(
            name=shape.name, min_worker_nodes=0, max_worker_nodes=most, resources=_resources(shape.slots)
        )
        for shape in shapes
    }


def _price(nodes: Mapping[str, int], shapes: Sequence[Shape]) -> float:
    prices = {shape.name: shape.price or 0 for shape in shapes}
    return sum(prices[name] * count for name, count in nodes.items()) / 1e6


def _resources(amount: Slots) -> dict[str, float]:
    found = {"CPU": amount.cpu / 1000, "memory": float(amount.memory), "GPU": amount.gpu_milli / 1000}
    return {name: value for name, value in found.items() if value}


def _asked(ask: Request) -> dict[str, float]:
    return _resources(Slots(ask.cpu, ask.memory)) | ({"GPU": ask.gpu.milli / 1000} if ask.gpu.milli else {})
