"""Asyncio tasks only: wait for the next slot, call the part that does the work, hand on what it yields.

A fault in one turn is logged once with its cause, counted in `quantum_faults_total`, and the loop goes on.
"""
