"""Steps of the DAGs. Each opens its volume through the hook and imports the core inside `execute`."""
