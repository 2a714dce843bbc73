"""The Azure driver: one subscription, resource group and region, through Azure Resource Manager."""
