"""Our ends of the tunnel's benchmark, each a process: `python -m bench.ends relay | agent | client | crowd …`.

They are put together from the product's own parts as `federation.main` and `agent.run` do it, without a store and
without runs. Each prints lines of JSON.
"""
