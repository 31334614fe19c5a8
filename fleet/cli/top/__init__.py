"""`fleet top`: what it measures between two looks, what keys do, and how it is drawn."""
