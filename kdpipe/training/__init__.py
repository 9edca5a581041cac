"""Training: students of one seed learn together, from the same batches and one pass of their teacher."""
