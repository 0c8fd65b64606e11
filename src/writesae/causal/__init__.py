"""A model run changed: native runs, single-write and planned edits, gradients at the recurrence, 64 bits, memory."""
