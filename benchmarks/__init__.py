"""How fast the package is, next to the reference, to other loaders and to what the machine can do at all.

``python -m benchmarks --help``; CONTRIBUTING.md says how to add a case or a peer.

A run goes through *cases* (one folder, one class per kind of work). In each, every *peer* (a package that can do it)
sits in a process of its own and does the work when it is told to; all take turns, in an order that is shuffled anew
for each round. What a peer loaded or saved is compared with what it must be before its time counts.
"""
