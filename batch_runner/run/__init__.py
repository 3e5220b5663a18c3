"""One run: plan, price, submit, collect, save; and what a person decides about a job."""
