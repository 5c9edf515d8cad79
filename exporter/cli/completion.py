"""`quantum-exporter completion`: completion for the shell, made from the parsers themselves."""

from __future__ import annotations

import argparse

import shtab

_SHELLS = ("bash", "zsh", "tcsh")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "completion",
        help="print the completion script for a shell",
        description="Prints a script that completes commands, options and their words. It is made from this "
        "version of the program: print it again after an upgrade.",
        epilog="examples:\n"
        "  quantum-exporter completion bash > ~/.local/share/bash-completion/completions/quantum-exporter\n"
        "  quantum-exporter completion zsh > ~/.zsh/completions/_quantum-exporter\n"
        "  quantum-exporter completion tcsh > ~/.quantum-exporter.completion.csh",
    )
    parser.add_argument("shell", choices=_SHELLS, help="the shell that shall complete")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from exporter.cli import build_parser

    print(shtab.complete(build_parser(), shell=args.shell))
    return 0
