"""`atoll simulate`: what a trace, or this installation's own history, would have cost and waited under other rules."""

import argparse
from pathlib import Path

from atoll.cli.parser import Parser, Run
from atoll.cli.server import server_side

_MORE = """
A trace is CSV or JSON lines: one job a line, with at (Unix seconds or 2026-01-31 08:00), duration_s, and gpu or cpu;
optional: memory, gpu_models (T4|L4), nodes, project, expected_s, priority, max_price, max_wait_s, deadline_s, spot,
checkpoint (true, or the seconds of work that a move costs), and all else that a session may ask for: what --save
writes of a history reads back with --trace. The Philly and openb traces are read as they are.
What it runs on: --setup FILE, else this installation's own sites, groups and prices, else a built-in example.
A policy is `default`, a name or a YAML file; those of projects hold beside it.
`default:wait_value=2,scarcity=0` changes single rules of it:
wait_value, patience, scarcity, rework, spot_interruptions, homecoming.

more:
  atoll simulate --history 7d --policy default --compare cheap.yaml
  atoll simulate --trace jobs.csv --compare default:homecoming=0 --checkpoints 0.5
  atoll simulate --trace jobs.csv --sweep wait_value=0.01,0.1,1,10 --report report.html
  atoll simulate --print-setup >setup.yaml
"""


def simulate(parser: Parser) -> Run:
    """Set up `atoll simulate`."""
    parser.epilog = (parser.epilog or "") + "\n" + _MORE
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--trace", type=Path, metavar="FILE", help="jobs to replay: CSV or JSON lines")
    what.add_argument("--history", metavar="TIME", help="this installation's own sessions of the last 7d, 12h")
    what.add_argument("--print-setup", action="store_true", help="print the built-in example of a setup, and no more")
    parser.add_argument("--setup", type=Path, metavar="FILE", help="what to run it on: YAML")
    parser.add_argument("--policy", default="default", metavar="P", help="policy to replay with (default: default)")
    parser.add_argument("--compare", nargs="+", action="extend", default=[], metavar="P", help="and these beside it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=N", help="change a rule in all of them")
    parser.add_argument("--sweep", metavar="KEY=A,B,…", help="replay --policy with each of these values, too")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page with charts there (HTML)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the jobs there as JSON lines")
    parser.add_argument(
        "--cluster", default="", metavar="NAME", help="only this cluster's jobs, where a trace has several"
    )
    parser.add_argument("--days", type=float, metavar="N", help="only this many days of the trace")
    parser.add_argument("--skip-days", type=float, default=0.0, metavar="N", help="after this many of its first days")
    parser.add_argument("--checkpoints", type=float, metavar="PART", help="this part of jobs, 0 to 1, may be moved")
    parser.add_argument("--expected", default="10m", metavar="TIME", help="run time the router assumes (default 10m)")
    parser.add_argument("--clairvoyant", action="store_true", help="tell the router how long each job will run")
    parser.add_argument("--max-wait", metavar="TIME", help="count the jobs that waited longer")
    parser.add_argument(
        "--idle", metavar="TIME", help="end empty machines after this time, in place of the groups' own"
    )
    parser.add_argument("--tick", default="1s", metavar="TIME", help="least time between two decisions (default 1s)")
    parser.add_argument("--no-interruptions", action="store_true", help="no spot machine is taken away")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="for what is left to chance (default 1)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    parser.output()
    return lambda args: server_side("federation.simulate.command", "simulate", args)
