"""What the controller puts right by itself: which steps of a plan, when, and when it gives up. PURE."""
