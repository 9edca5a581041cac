"""Networks: built with timm, tapped, profiled, saved and loaded."""
