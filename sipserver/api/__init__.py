"""HTTP by aiohttp: health, readiness, metrics."""
