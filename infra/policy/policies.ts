import type { ResourceValidation, ResourceValidationPolicy } from '@pulumi/policy';
import { imageFault } from '../environment';
import { RULES, type Resolved } from '../guardrails';

/**
 * The guardrails as policies, for `pulumi preview --policy-pack infra/policy`: the rules that the program applies to
 * its own containers, and two that only Pulumi can see. What a preview cannot know yet, `pulumi up` checks.
 */
const CONTAINER = 'docker:index/container:Container';
const REMOTE_IMAGE = 'docker:index/remoteImage:RemoteImage';

const containerPolicies = RULES.map(({ name, says, broken }) =>
  policy(name, `Refused: a container that ${says}.`, ({ type, props }, report) => {
    if (type === CONTAINER && broken(props as Resolved)) report(`it ${says}`);
  }),
);

export const policies: ResourceValidationPolicy[] = [
  ...containerPolicies,
  policy('exact-pull', 'No image is pulled by a tag that moves.', ({ type, props }, report) => {
    const fault = type === REMOTE_IMAGE ? imageFault(String(props['name'])) : undefined;
    if (fault !== undefined) report(`its name ${fault}`);
  }),
  policy('explicit-engine', 'Every resource of Docker names its provider.', ({ type, provider }, report) => {
    // The default one takes DOCKER_HOST of whoever runs it: one terminal more, and containers are on another engine.
    if (type.startsWith('docker:') && provider?.name.startsWith('default')) {
      report('it leaves the choice of the engine to the environment: give it a docker.Provider');
    }
  }),
];

function policy(name: string, description: string, validateResource: ResourceValidation): ResourceValidationPolicy {
  return { name, description, enforcementLevel: 'mandatory', validateResource };
}
