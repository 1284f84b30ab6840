"""The DAG as data, the harness around a stage, and gates."""
