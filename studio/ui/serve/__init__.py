"""The Serve tab: plans, engines, and a small chat."""
