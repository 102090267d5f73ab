"""The scaling law Y(N, V): forms, fits, intervals, the optimum under a budget."""
