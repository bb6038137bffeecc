"""An ordinary Ray application: orders are priced by tasks, and goods are reserved with an actor."""
