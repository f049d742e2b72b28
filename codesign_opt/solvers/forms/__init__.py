"""Programs with quadratic forms of inverse powers: a primal-dual interior-point method."""
