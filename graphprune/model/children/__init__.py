# SPDX-License-Identifier: Apache-2.0
"""Children: processes that run what nobody has vouched for, with limits that follow from the model."""
