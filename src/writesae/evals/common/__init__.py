"""What evaluations share: the frame, results, finished pieces, provenance, firings, controls, statistics."""
