"""Every query of notification. Batches are one statement each; whoever changes messages holds their recipients first."""
