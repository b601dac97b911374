"""Save a dashboard for the runs of a W&B project: memorized fractions, masks, samples, localization, detection and cost.

  afterglow dashboard --entity TEAM --project afterglow                 a workspace for runs
  afterglow dashboard --entity TEAM --project afterglow --view sweep    emergence against n, copies, shapes, width
  afterglow dashboard --entity TEAM --project afterglow --report        a W&B report with the same panels
  afterglow dashboard --entity TEAM --project afterglow --report --run demo        the same of one run
  afterglow dashboard --entity TEAM --project afterglow --print         print the workspace's specification; needs no network

It needs the extra `dashboard` (in the clone: `pip install -e '.[dashboard]'`).
"""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--entity", required=True, metavar="NAME", help="W&B user or team")
    parser.add_argument("--project", default="afterglow", metavar="NAME", help="W&B project")
    parser.add_argument(
        "--view", choices=["runs", "sweep"], default="runs", help="panels for single runs, or for the comparison of a sweep"
    )
    parser.add_argument("--run", metavar="RUN", help="show only the run of this name (default: all runs)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--report", action="store_true", help="save a report instead of a workspace")
    form.add_argument("--print", action="store_true", help="print the specification of the workspace instead of saving it")


def run(args: Namespace) -> None:
    """Build the dashboard and save or print it."""
    from afterglow.loggers import workspace
    from afterglow.loggers.names import check_names

    check_names(args.project, args.entity, ())
    if args.print:
        print(workspace.specification(workspace.workspace(args.entity, args.project, args.view, args.run)))
        return
    build = workspace.report if args.report else workspace.workspace
    print(workspace.save(build(args.entity, args.project, args.view, args.run)))
