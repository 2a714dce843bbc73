data "aws_region" "here" {}

data "aws_availability_zones" "open" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  zones = length(var.zones) > 0 ? var.zones : slice(
    sort(data.aws_availability_zones.open.names), 0, min(16, length(data.aws_availability_zones.open.names))
  )
}

resource "aws_vpc" "agents" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(var.tags, { Name = "${var.name}-agents" })
}

resource "aws_internet_gateway" "out" {
  vpc_id = aws_vpc.agents.id
  tags   = merge(var.tags, { Name = "${var.name}-agents" })
}

resource "aws_route_table" "out" {
  vpc_id = aws_vpc.agents.id
  tags   = merge(var.tags, { Name = "${var.name}-agents" })

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.out.id
  }
}

resource "aws_subnet" "agents" {
  for_each = { for number, zone in local.zones : zone => number }

  vpc_id            = aws_vpc.agents.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 4, each.value)
  tags              = merge(var.tags, { Name = "${var.name}-agents-${each.key}" })
}

resource "aws_route_table_association" "out" {
  for_each = aws_subnet.agents

  subnet_id      = each.value.id
  route_table_id = aws_route_table.out.id
}

# Agents dial out and nobody dials in: no ingress at all. An empty list says so: left out, it would mean "as it is".
resource "aws_security_group" "agents" {
  name        = "${var.name}-agents"
  description = "Atoll agents: out to the control plane and DNS, nothing in"
  vpc_id      = aws_vpc.agents.id
  ingress     = []
  tags        = merge(var.tags, { Name = "${var.name}-agents" })

  egress {
    description = "the control plane"
    protocol    = "tcp"
    from_port   = var.control_port
    to_port     = var.control_port
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "DNS"
    protocol    = "udp"
    from_port   = 53
    to_port     = 53
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "DNS, long answers"
    protocol    = "tcp"
    from_port   = 53
    to_port     = 53
    cidr_blocks = ["0.0.0.0/0"]
  }
}

# Debian's own account publishes the images.
data "aws_ami" "debian" {
  count = var.image == "" ? 1 : 0

  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-${var.architecture == "x86_64" ? "amd64" : var.architecture}-*"]
  }

  filter {
    name   = "architecture"
    values = [var.architecture]
  }
}
