variable "name" {
  description = "Name of the provider in Atoll, and the beginning of the name of everything made here."
  type        = string
  default     = "aws"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "At most 32 of a-z, 0-9 and -, a letter first."
  }
}

variable "zones" {
  description = "Availability zones to make machines in; empty: all of the region that need no opt-in."
  type        = list(string)
  default     = []
}

variable "cidr" {
  description = "Addresses of the network; each zone gets a sixteenth of it."
  type        = string
  default     = "10.80.0.0/16"
}

variable "image" {
  description = "Id of the machines' image, which must run cloud-init; empty: the newest Debian 12 for architecture."
  type        = string
  default     = ""
}

variable "architecture" {
  description = "What the image that is looked up is for: x86_64 or arm64."
  type        = string
  default     = "x86_64"
}

variable "control_port" {
  description = "TCP port of the control plane: all that agents dial, besides DNS."
  type        = number
  default     = 443
}

variable "owner" {
  description = "The installation's id, where known: its machines alone are then within the policy's reach."
  type        = string
  default     = ""
}

variable "trusted_principals" {
  description = "ARNs that may take the role on; empty: a user with an access key is made instead of a role."
  type        = list(string)
  default     = []
}

variable "external_id" {
  description = "Must be told by who takes the role on: for a role in another account. Empty: none is asked for."
  type        = string
  default     = ""
}

variable "tags" {
  description = "Tags of everything made here and of Atoll's machines."
  type        = map(string)
  default     = {}
}
