//! Shared pieces of the scenario, conformance and end-to-end tests.
