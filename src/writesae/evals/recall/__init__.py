"""Facts whose tokens, question and answer are known: where a host keeps them, and what a change of that write costs.

changed.py   recall of passages as they are, and with the writes at some cells of each fact changed
located.py   the map (head, token of the statement) of what deleting a write costs, and the cells that bind together
    sufficient.py  atoms and random matrices in the place of a write, and how much of the fact they bring back
"""
