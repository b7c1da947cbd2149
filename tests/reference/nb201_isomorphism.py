"""The isomorphism test of NAS-Bench-201, from the description in its paper (Dong & Yang 2020).

A node is the sorted sum of its edges, an edge is its operation applied to its source, ``skip_connect`` is its source,
and two cells are isomorphic if their outputs are the same string. Whether ``none`` is a zero was decided by the count:
with ``none``, and whatever reads nothing but one ``none``, written ``#``, there are 6,466 classes; without it 12,751.
The zero stays in the sum, so ``x`` and ``x + #`` are two classes.
"""


def isomorphism_string(arch: str) -> str:
    nodes = ["0"]
    for node in arch.split("+"):
        edges = []
        for edge in node.strip("|").split("|"):
            op, source = edge.split("~")
            value = nodes[int(source)]
            if op == "none" or value == "#":
                edges.append("#")
            elif op == "skip_connect":
                edges.append(value)
            else:
                edges.append(f"({value})@{op}")
        nodes.append("+".join(sorted(edges)))
    return nodes[-1]
